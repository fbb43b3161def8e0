// The state that all modules of the page share.

export const VERDICTS = {
  accepted: { key: "a", mark: "✓", word: "Accepted" },
  rejected: { key: "r", mark: "✕", word: "Rejected" },
  unsure: { key: "u", mark: "?", word: "Unsure" },
};

export const FILTERS = {
  all: "All", undecided: "Undecided", near: "Near the threshold", accepted: "Accepted",
  rejected: "Rejected", unsure: "Unsure",
};

export const state = {
  /** The server's answer to /api/session. */
  session: null,
  /** The labels of the list so far, and how many there are in all. */
  labels: [],
  totalLabels: 0,
  /** The open label, its probabilities in descending order, and the threshold of the slider. */
  label: null,
  probabilities: new Float64Array(0),
  threshold: 0.5,
  /** The filter, the photos so far, how many match it, and whether there are more. */
  filter: "all",
  photos: [],
  matching: 0,
  hasMore: false,
  isLoading: false,
  /** Positions in photos: of the selected one, and of the one in the dialog. */
  selected: 0,
  enlarged: 0,
};

// Actions that wait.

/** Return a function that runs an action once it has not been called for some milliseconds. */
export function debounce(action, milliseconds) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
}

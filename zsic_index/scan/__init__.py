"""Scan of a label matrix: top-k, log-partition and probabilities. Arrays only.

Everything in this package computes, without holding a (B, N) array, the same as::

    logits = logit_scale * (queries @ matrix.T) + logit_bias         # (B, N)
    rows = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]     # (B, k), best first
    log_partition = np.log(np.exp(logits).sum(axis=1))               # (B,), over all N labels
    best = np.take_along_axis(logits, rows, axis=1)
    softmax = np.exp(best - log_partition[:, None])                  # CLIP
    sigmoid = 1 / (1 + np.exp(-best))                                # SigLIP

``exact.scan`` is that in one pass, ``probabilities.activate`` the last two lines. ``pooling`` and
``groups`` reduce rows to labels and labels to nodes within the pass; ``device`` does the same on a
GPU, with the reductions of ``device_segments``; ``sampled`` estimates the log-partition of an
approximate index.
"""

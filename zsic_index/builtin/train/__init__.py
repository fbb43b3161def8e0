"""Training of the two built-in models; not needed to use them.

The steps of ``python -m zsic_index.builtin.train``:

1. ``npm`` fetches emoji sets, ``concepts`` lists the emoji and their names, ``sets`` matches icons
   to them, ``drawings`` renders the icons once to small arrays.
2. ``runs`` trains a CLIP and a SigLIP (``towers``, ``tokens``) on ``batches`` of augmented images
   (``augment``) and ``captions``; ``objectives`` has the losses, ``fit`` the loop.
3. ``calibrate`` fits logit scale and bias, ``export`` writes a checkpoint folder for transformers.
4. ``samples`` and ``sampling`` make the sample images, ``evaluation`` measures the models, ``card``
   writes the model card.

It needs ``torch``, ``transformers``, ``tokenizers``, ``resvg_py``, ``pillow``, ``numpy``, ``click``
and, for the first step, ``npm``.
"""

"""How the two built-in models were made: data, training, evaluation, card.

Nothing here is needed to use the models. It wants ``torch``, ``transformers``, ``tokenizers``,
``resvg_py``, ``pillow``, ``numpy``, ``click`` and, once, ``npm`` for the drawings.
"""

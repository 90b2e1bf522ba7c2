"""Stages alone: a recipe's steps on existing traces or an existing model, without a recipe.

stages.py       verify, compress, truncate, stats, push;   evaluating.py: a model on tasks
source.py       a file or a Hub id -> the origin that a recipe's `traces` would name
folder.py       the folder that a stage writes
inspect.py      what would be read: columns, yields, lengths, agreement, examples
scaffold.py     writes a recipe that uses the traces
compressing.py  options -> compressor and engine;   step.py: runs one step;   target.py: lengths of other traces
"""

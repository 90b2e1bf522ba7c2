"""Stages alone: what a recipe's steps do, on traces that exist and without a recipe.

source.py    a file, a Hub id or an earlier stage's folder -> the origin that a recipe's `traces` would name
inspect.py   what would be read: columns, yields, lengths, agreement, examples
scaffold.py  a recipe that uses them
"""

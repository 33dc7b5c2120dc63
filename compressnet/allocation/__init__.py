"""How exactly each number of a model is stored: where an error costs much, in small steps, and elsewhere in large ones.

A file's bytes and its distance from the model are traded by one number. At high rate the steps that are best together
are those at which every stored number adds the same to the divergence of the model's answers, D: a tensor whose numbers
cost s a squared error has the step √(12 D / s). Numbers of dense weights are rounded so that the error of one makes up
for those of others on what the layer sees.
"""

from compressnet.allocation.allocate import Allocated, Target, allocate_

__all__ = ["Allocated", "Target", "allocate_"]

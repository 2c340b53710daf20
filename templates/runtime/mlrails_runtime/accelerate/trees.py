"""Decision trees, all of a forest at once: every row walks down every tree, a level a step, as array operations.

A forest of T trees is one table of nodes. For few rows that is a few hundred microseconds, where calling T trees one by one takes
many milliseconds; for many rows the trees' own compiled walk is faster, and is called without the checks around it.
"""

from __future__ import annotations

import numpy

from mlrails_runtime.accelerate import Refused, Unusual

# Rows times trees from which on the trees' own walk is faster.
_OWN_WALK = 8192
# A node takes 36 bytes of a plan, and more with several classes.
_MOST_NODES = 4_000_000


class Forest:
    """`trees`: per tree (feature, threshold, left, right, value of shape (nodes, outputs), for NaN whether it goes left, depth)."""

    def __init__(self, trees, dtype, walks=None):
        """`dtype`: in which values are compared. `walks`: per tree a function from the matrix to its nodes' numbers, if it has one."""
        sizes = [len(tree[0]) for tree in trees]
        if sum(sizes) > _MOST_NODES:
            raise Refused(f"{sum(sizes)} nodes of trees would be held a second time")
        self.roots = numpy.cumsum([0, *sizes[:-1]]).astype(numpy.intp)
        self.feature = numpy.concatenate([numpy.maximum(tree[0], 0) for tree in trees]).astype(numpy.int32)
        self.threshold = numpy.concatenate([tree[1] for tree in trees]).astype(float)
        children = []
        for root, (feature, _, left, right, _, _, _) in zip(self.roots, trees):
            here = numpy.arange(len(feature))
            leaf = left < 0
            # A leaf is its own child, on both sides.
            children.append(numpy.stack([numpy.where(leaf, here, left), numpy.where(leaf, here, right)], axis=1) + root)
        self.children = numpy.concatenate(children).astype(numpy.int32).ravel()
        self.value = numpy.concatenate([tree[4] for tree in trees]).astype(float)
        missing = [tree[5] for tree in trees]
        self.missing_right = None if any(one is None for one in missing) else ~numpy.concatenate(missing).astype(bool)
        self.depth = max(tree[6] for tree in trees)
        self.dtype = dtype
        self.walks = walks
        self.trees = len(trees)

    def large(self, rows):
        """Whether the trees' own walk is the faster one."""
        return rows * self.trees > _OWN_WALK

    def leaves(self, values):
        """The value of the leaf that each row reaches in each tree, shape (trees, rows, outputs). `values`: (columns, rows)."""
        rows = values.shape[1]
        gaps = numpy.isnan(values).any()
        if gaps and self.missing_right is None:
            raise Unusual
        values = values.astype(self.dtype)
        if self.large(rows) and self.walks is not None:
            matrix = numpy.ascontiguousarray(values.T)
            nodes = numpy.stack([walk(matrix) for walk in self.walks]) + self.roots[:, None]
            return self.value[nodes]
        flat = numpy.ascontiguousarray(values).ravel()
        at = numpy.arange(rows)
        # Trees may have many levels of which few rows see the last.
        nodes = numpy.repeat(self.roots, rows)
        at = numpy.tile(at, self.trees)
        for _ in range(self.depth):
            cells = flat[self.feature[nodes] * rows + at] if rows > 1 else flat[self.feature[nodes]]
            right = cells > self.threshold[nodes]
            if gaps:
                right = numpy.where(numpy.isnan(cells), self.missing_right[nodes], right)
            nodes = self.children[2 * nodes + right]
        return self.value[nodes].reshape(self.trees, rows, -1)


def of_tree(tree, value):
    """The arrays of scikit-learn's `tree_`."""
    return tree.feature, tree.threshold, tree.children_left, tree.children_right, value, None, tree.max_depth


def of_histogram(nodes):
    """The arrays of a histogram-based tree's `nodes`; its leaves have no children."""
    leaf = nodes["is_leaf"].astype(bool)
    left = numpy.where(leaf, -1, nodes["left"].astype(numpy.int64))
    right = numpy.where(leaf, -1, nodes["right"].astype(numpy.int64))
    feature = numpy.where(leaf, 0, nodes["feature_idx"].astype(numpy.int64))
    return feature, nodes["num_threshold"], left, right, nodes["value"].reshape(-1, 1), nodes["missing_go_to_left"], int(nodes["depth"].max())

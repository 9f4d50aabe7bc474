"""A scikit-learn estimator that learns a dictionary and codes in it, with any separable prior."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
import torch

from sparsepriors import _checks
from sparsepriors.dictionaries.coding import curvature, sparse_codes
from sparsepriors.dictionaries.learning import DictionaryLearner, random_atoms
from sparsepriors.priors import CEL0, Prior

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_array, check_is_fitted, validate_data
except ImportError as e:
    raise ImportError("the estimator of sparsepriors.dictionaries needs scikit-learn: "
                      "pip install 'sparsepriors[statistics]'") from e

_TYPES = [np.float64, np.float32]


class SparseCoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Learn a dictionary D and write signals as ``r D`` with codes r that the prior finds likely.

    Minimises ``1/2 ||x - r D||^2 + prior(r)`` for every signal x, over codes and, batch by batch, over atoms of unit
    length. See `DictionaryLearner` and `sparse_codes`.

    Parameters
    ----------
    prior
        Separable; ``CEL0(0.1)`` by default.
    n_components
        Units: atoms of the dictionary.
    active
        Mean number of active units that the weight of the prior is adapted to while learning; None keeps the weight.
    learning_rate
        Of gradient steps on the dictionary, for data of a known scale; None for steps that need no rate.
    step
        Of the codes' iteration, at most 1 / L for the dictionary's L; None for 1 / L.
    batch_size, epochs
        Signals that are coded between two updates of the dictionary, and passes of `fit` over the data, each in an
        order of its own.
    tol, max_iter
        Of the codes: see `sparse_codes`.
    random_state
        Draws the first atoms and the order of the signals.

    Attributes
    ----------
    components_
        ``(n_components, n_features)``, the dictionary.
    prior_
        The prior with the weight that was reached; `transform` uses it.
    usage_
        ``(n_components,)``: share of the signals seen in which each unit was active; zero for dead units.
    n_iter_
        Batches so far.
    history_
        One dict for each batch: ``mse``, ``active``, ``steps``, ``converged``.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsepriors.dictionaries import SparseCoder
    >>> from sparsepriors.priors import CEL0
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((2000, 3)) * (rng.random((2000, 3)) < 0.3) @ rng.standard_normal((3, 8))
    >>> model = SparseCoder(CEL0(0.01), n_components=3, random_state=0).fit(X)
    >>> model.encode(X).shape
    (2000, 3)
    """

    def __init__(self, prior: Prior | None = None, *, n_components: int = 100, active: float | None = None,
                 learning_rate: float | None = None, step: float | None = None, batch_size: int = 250, epochs: int = 1,
                 tol: float = 1e-2, max_iter: int = 5000, random_state: Any = None) -> None:
        self.prior = prior
        self.n_components = n_components
        self.active = active
        self.learning_rate = learning_rate
        self.step = step
        self.batch_size = batch_size
        self.epochs = epochs
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from ``(n, features)`` signals.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the data do not fit.
        """
        _checks.count("epochs", self.epochs, low=1)
        X = validate_data(self, X, dtype=_TYPES)
        random = self._begin(X)
        for _ in range(self.epochs):
            self._learn(X[random.permutation(len(X))])
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Learn from further signals, in the order in which they come; the first call begins.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the data do not fit.
        """
        first = not hasattr(self, "_learner")
        X = validate_data(self, X, dtype=_TYPES, reset=first)
        if first:
            self._begin(X)
        self._learn(X)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Codes ``(n, n_components)`` of ``(n, features)`` signals."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=_TYPES, reset=False)
        x = torch.from_numpy(np.ascontiguousarray(X))
        atoms = torch.from_numpy(self.components_).to(x.dtype)
        # As in learning, the step that was asked for gives way to one that this dictionary allows.
        step = None if self.step is None else min(self.step, 1 / curvature(atoms))
        found = sparse_codes(x, atoms, self.prior_, step=step, tol=self.tol, max_iter=self.max_iter)
        slow = int((~found.converged).sum())
        if slow:
            warnings.warn(f"{slow} of {len(x)} codes were still moving after max_iter = {self.max_iter} steps",
                          ConvergenceWarning, stacklevel=2)
        return found.codes.numpy()

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Signals ``(n, features)`` that codes ``(n, n_components)`` stand for."""
        check_is_fitted(self)
        codes: np.ndarray = check_array(X, dtype=_TYPES)  # pyright: ignore[reportArgumentType]  its stubs know one dtype
        if codes.shape[1] != len(self.components_):
            raise ValueError(f"X must have {len(self.components_)} columns, one for each unit, got {codes.shape[1]}")
        return codes @ self.components_.astype(codes.dtype, copy=False)

    def encode(self, X: Any) -> np.ndarray:
        """The same as `transform`."""
        return self.transform(X)

    def decode(self, codes: Any) -> np.ndarray:
        """The same as `inverse_transform`."""
        return self.inverse_transform(codes)

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _begin(self, X: np.ndarray) -> np.random.RandomState:
        _checks.count("batch_size", self.batch_size, low=1)
        _checks.count("n_components", self.n_components, low=1)
        random = check_random_state(self.random_state)
        generator = torch.Generator().manual_seed(int(random.randint(2**31 - 1)))
        atoms = random_atoms(self.n_components, X.shape[1], generator, dtype=torch.from_numpy(X[:0]).dtype)
        self._learner = DictionaryLearner(
            atoms, CEL0(0.1) if self.prior is None else self.prior, active=self.active, rate=self.learning_rate,
            step=self.step, tol=self.tol, max_iter=self.max_iter)
        self.history_: list[dict[str, float]] = []
        return random

    def _learn(self, X: np.ndarray) -> None:
        dtype = self._learner.dictionary.dtype
        for first in range(0, len(X), self.batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(X[first:first + self.batch_size])).to(dtype)
            self.history_.append(dict(self._learner.update(batch)))
        self.n_iter_ = len(self.history_)
        self.components_ = self._learner.dictionary.numpy()
        self.prior_ = self._learner.prior
        self.usage_ = self._learner.usage.numpy() / self._learner.seen

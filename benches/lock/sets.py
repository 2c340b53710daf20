"""What real projects ask for, as `[project]` tables: small, wide, deep, and heavy."""

SETS = {
    "trio": """
requires-python = ">=3.9"
dependencies = ["attrs>=23.2.0", "sortedcontainers", "idna", "outcome", "sniffio>=1.3.0", "cffi>=1.14; os_name == 'nt' and implementation_name != 'pypy'",
  "exceptiongroup; python_version < '3.11'", "pytest>=5.0", "coverage>=7.2.5", "async_generator>=1.9", "pyright", "pyOpenSSL>=22.0.0", "trustme", "pylint", "jedi",
  "cryptography>=41.0.0", "black; implementation_name == 'cpython'", "mypy; implementation_name == 'cpython'", "ruff>=0.8.0", "astor", "codespell",
  "sphinx>=6.0", "sphinx-rtd-theme", "sphinxcontrib-jquery", "sphinxcontrib-trio", "towncrier", "types-cffi", "types-docutils", "typing-extensions"]
""",
    "jupyter": """
requires-python = ">=3.10"
dependencies = ["jupyter"]
""",
    "airflow": """
requires-python = ">=3.10,<3.14"
dependencies = ["apache-airflow-core"]
""",
    "torch": """
requires-python = ">=3.11"
dependencies = ["torch", "transformers", "xgboost"]
""",
    "churn": None,  # fixtures/churn's own pyproject.toml
}


def pyproject(name, root, extra=()):
    """The text of a pyproject.toml for one of the sets, with `extra` requirements added."""
    table = SETS[name]
    text = (root / "fixtures/churn/pyproject.toml").read_text() if table is None else f'[project]\nname = "{name}-set"\nversion = "0"\n{table.strip()}\n'
    added = "".join(f'"{requirement}", ' for requirement in extra)
    return text.replace("dependencies = [", f"dependencies = [{added}", 1)

"""The user's own modules, which register tasks, methods, strategies, aggregators and optimizers at the start.

A plugin is imported before the program's flags are defined, because it adds choices to flags. Its settings become flags
like any others. See docs/extending.md.
"""

import ast
import hashlib
import importlib
import importlib.util
import itertools
import os
import pathlib
import sys
import traceback
import types
from collections.abc import Mapping, Sequence

from absl import flags

from tff_personalization import aggregators, errors, homes, methods, optimizers, startup
from tff_personalization.personalization import strategies
from tff_personalization.tasks import registry

_loaded: dict[str, str] = {}  # the SHA-256 of the source by the plugin's name
_files_of: dict[str, dict[str, list[pathlib.Path]]] = {}  # by the plugin's name: its files and those of its helpers


def split(values: Sequence[str]) -> list[str]:
    """The plugins that the values of `--plugin` name, separated by commas, each once.

    The path of an existing file may contain commas.
    """
    names: dict[str, str] = {}
    for value in values:
        pieces = value.split(",")
        while pieces:
            ends = range(len(pieces), 1, -1)
            count = next((end for end in ends if os.path.isfile(os.path.expanduser(",".join(pieces[:end])))), 1)
            name = ",".join(pieces[:count])
            name = name if os.path.isfile(os.path.expanduser(name)) else name.strip()
            names.setdefault(os.path.realpath(os.path.expanduser(name)) if name.endswith(".py") else name, name)
            del pieces[:count]
    return [name for name in names.values() if name]


def load(argv: Sequence[str]) -> None:
    """Imports the plugins that a command line names, also in flag files. Call this before flags are defined.

    Raises:
        UserError: a plugin does not exist, cannot be imported, registers nothing, or registers a name in use.
        flags.Error: a flag file cannot be read.
    """
    values = flags.FlagValues()
    flags.DEFINE_multi_string("plugin", [], "", flag_values=values)
    values.set_gnu_getopt()  # the text after a flag that is not known yet may be its value
    values(list(argv), known_only=True)
    for name in split(values["plugin"].value):
        flags_before, registered_before = set(flags.FLAGS), _count_registered()
        module = _import(name)
        if _count_registered() == registered_before:
            raise errors.UserError(
                f"--plugin={name}: it registers no task, method, strategy, aggregator or optimizer: see "
                "docs/extending.md."
            )
        if own := sorted(set(flags.FLAGS) - flags_before):
            raise errors.UserError(
                f"--plugin={name}: it defines the flag --{own[0]} with absl: make it a Setting in a group of settings "
                "(docs/extending.md)."
            )
        files = _files(module)
        read = {module.__name__: files} | (_beside(files) if not hasattr(module, "__path__") else {})
        _files_of[module.__name__] = read
        _loaded.update((source, sha256(own)) for source, own in read.items())
        startup.OF_PLUGINS.update(dict.fromkeys(map(str, itertools.chain(*read.values())), name))


def load_again(names: Sequence[str], sources: Mapping[str, str]) -> None:
    """Imports the plugins of an earlier run that are not imported yet.

    Args:
        names: the plugins, as in `--plugin`.
        sources: the SHA-256 of their sources in that run, as in `sources`.

    Raises:
        UserError: a plugin is missing, cannot be imported, or has changed.
    """
    modules = {name: pathlib.Path(name).stem if name.endswith(".py") else name for name in names}
    load(["", *(f"--plugin={name}" for name, module in modules.items() if module not in _loaded)])
    for name, module in modules.items():
        for source, files in _files_of.get(module, {}).items():
            if not all(file.is_file() for file in files) or sha256(files) != _loaded[source]:
                raise errors.UserError(f"--plugin={name}: {source} has changed since it was imported: restart Python.")
    for name, then in sources.items():
        now = _loaded.get(name, "")
        if now != then:
            raise errors.UserError(
                f"--plugin: {name} has changed since the run (SHA-256 {then[:12]}… then, {now[:12] or 'none'}… now): "
                "restore it."
            )


def sources() -> dict[str, str]:
    """The SHA-256 of each loaded plugin's source (of all its modules, if it is a package), by its name.

    It also has those of the modules and packages beside its file that it imports.
    """
    return dict(_loaded)


def sha256(files: Sequence[pathlib.Path]) -> str:
    """The SHA-256 of the files' contents, one after the other."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _count_registered() -> int:
    others = len(strategies.STRATEGIES) + len(aggregators.AGGREGATORS) + len(optimizers.OPTIMIZERS)
    return len(registry.TASKS) + len(methods.METHODS) + others


def _import(name: str) -> types.ModuleType:
    try:
        return _import_file(homes.expand(name)) if name.endswith(".py") else importlib.import_module(name)
    except errors.UserError as error:
        raise errors.UserError(f"--plugin={name}: {error}") from error
    except ModuleNotFoundError as error:
        if error.name == name.partition(".")[0] or error.name == name:
            raise errors.UserError(
                f"--plugin={name}: Python's path has no such module: give the path of its .py file."
            ) from error
        raise _failed(name, error) from error
    except Exception as error:
        raise _failed(name, error) from error


def _import_file(path: pathlib.Path) -> types.ModuleType:
    path = path.absolute()
    if not path.is_file():
        raise errors.UserError("there is no such file.")
    if not path.stem.isidentifier():
        raise errors.UserError(f"{path.stem!r} is no name of a module: rename the file, with letters, digits and _.")
    if path.stem in sys.modules:
        raise errors.UserError(f"a module {path.stem!r} exists already: rename the file.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last, so that files beside a plugin do not hide installed packages
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _beside(files: Sequence[pathlib.Path]) -> dict[str, list[pathlib.Path]]:
    """The files of each module and package beside a plugin's file that it imports, directly or not, by name."""
    found: dict[str, list[pathlib.Path]] = {}
    folder = files[0].parent
    waiting = list(files)
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop().read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {name.partition(".")[0] for name in names} - {"", *found}:
                own = [file for file in _files_in(folder, name) if file not in files]
                if own:
                    found[name] = own
                    waiting += own
    return found


def _files_in(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    """The files of a module or package in a folder, if importing its name finds it there."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module without a specification, such as __main__
        return []
    if spec is not None and str(folder / name) in (spec.submodule_search_locations or ()):
        return sorted((folder / name).rglob("*.py"))
    file = folder / f"{name}.py"
    return [file] if spec is not None and spec.origin == str(file) else []


def _failed(name: str, error: Exception) -> errors.UserError:
    """The error of a plugin's own code as one line that says where."""
    frames = traceback.extract_tb(error.__traceback__)
    here = str(pathlib.Path(__file__).parent)
    last = next((frame for frame in reversed(frames) if not frame.filename.startswith(here)), frames[-1])
    at = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (last.filename, last.lineno)
    message = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    return errors.UserError(f"--plugin={name}: {at[0]}, line {at[1]}: {type(error).__name__}: {message}")


def _files(module: types.ModuleType) -> list[pathlib.Path]:
    source = pathlib.Path(module.__file__ or "")
    return sorted(source.parent.rglob("*.py")) if hasattr(module, "__path__") else [source]

"""Where compiled code is kept, and what happens where it cannot be."""

from pathlib import Path

import pytest

from checkers import fast


@pytest.fixture
def unknown_place(monkeypatch):
    """No folder is chosen, and what was found before is forgotten."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for cached in (fast._folder, fast._own_folder):
        cached.cache_clear()
    yield
    for cached in (fast._folder, fast._own_folder):
        cached.cache_clear()


@pytest.fixture
def prepared(monkeypatch):
    """A part whose preparation is a list of what it is to raise, one after the other."""
    failures, said = [], []

    def prepare():
        if failures:
            raise failures.pop()

    monkeypatch.setattr(fast, "_own_cache", fast.suppress)
    monkeypatch.setattr(fast, "_PREPARE", {"replay": prepare})
    monkeypatch.setattr(fast, "_used", set())
    monkeypatch.setattr(fast, "announce", said.append)
    return failures, said


@pytest.mark.usefixtures("unknown_place")
def test_a_user_without_a_home_can_check(monkeypatch):
    """In a container a user may have neither HOME nor an entry in the system's list."""

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert fast._folder().is_relative_to(Path(fast.__file__).parent / "__pycache__")


@pytest.mark.usefixtures("unknown_place")
def test_where_nothing_can_be_written_a_folder_goes_with_the_process(monkeypatch, tmp_path):
    """Numba refuses to compile what it cannot keep anywhere."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    place = fast._place()
    assert place.is_dir()
    assert not place.is_relative_to(tmp_path)
    fast._own_folder().cleanup()


@pytest.mark.usefixtures("unknown_place")
def test_what_is_kept_where_one_may_only_read_is_used(monkeypatch, tmp_path):
    """Compiled for an image by its builder, used by somebody else."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    fast._folder().mkdir(parents=True)
    (fast._folder() / "kept").touch()
    assert (Path(fast._own_folder().name) / "kept").exists()
    fast._own_folder().cleanup()


@pytest.mark.usefixtures("unknown_place")
def test_code_that_was_cut_off_is_compiled_again(monkeypatch, tmp_path, prepared):
    """A disk that was full, or a machine that stopped, leaves files that numba cannot read."""
    failures, said = prepared
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    fast._folder().mkdir(parents=True)
    (fast._folder() / "index.nbi").touch()
    failures.append(EOFError("Ran out of input"))
    fast.prepare("replay")
    assert fast.used("replay")
    assert not (fast._folder() / "index.nbi").exists()
    assert any("cannot be used" in sentence for sentence in said)


@pytest.mark.usefixtures("unknown_place")
def test_what_fails_again_is_said(monkeypatch, tmp_path, prepared):
    """It was not what was kept."""
    failures, _ = prepared
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    failures += [ValueError("again"), EOFError("first")]
    with pytest.raises(ValueError, match="again"):
        fast.prepare("replay")
    assert not fast.used("replay")


@pytest.mark.usefixtures("unknown_place")
def test_what_was_kept_stays_where_numba_cannot_be_imported(monkeypatch, tmp_path, prepared):
    """A numba that does not go with the numpy there is."""
    failures, said = prepared
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    fast._folder().mkdir(parents=True)
    (fast._folder() / "replay.ready").touch()
    failures.append(ImportError("Numba needs another NumPy"))
    with pytest.raises(ImportError):
        fast.prepare("replay")
    assert (fast._folder() / "replay.ready").exists()
    assert not said

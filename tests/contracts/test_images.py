"""The images: their user can run the code and not rewrite it. No container engine builds them here, so their text is read."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = sorted((ROOT / "images").glob("*.Containerfile"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, its arguments), continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return [
        (word.upper(), rest.strip())
        for word, _, rest in (one.partition(" ") for one in "\n".join(lines).replace("\\\n", " ").splitlines())
    ]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_the_user_of_an_image_cannot_rewrite_its_code(path: Path, tmp_path: Path) -> None:
    found = instructions(path)
    users = [(place, rest) for place, (word, rest) in enumerate(found) if word == "USER"]
    assert [rest for _, rest in users] == ["1000"]  # root until then
    written = [place for place, (word, _) in enumerate(found) if word in ("RUN", "COPY", "ADD")]
    assert max(written) < users[0][0]
    assert not [
        rest for _, rest in found if re.search(r"chown|--chmod|chmod\s+(\S*\s+)*\S*(\+\S*w|[0-7]*[2367]\b)", rest)
    ]
    closing = [rest for word, rest in found if word == "RUN" and "chmod" in rest]
    assert len(closing) == 1  # before: `chown -R wfm /opt/wfm`
    assert found.index(("RUN", closing[0])) == max(written)  # after all that is put there
    # the command does what it is there for
    code = tmp_path / "opt" / "wfm" / "pipelines"
    code.mkdir(parents=True)
    (code / "cli.py").write_text("")
    (code / "cli.py").chmod(0o666)
    code.chmod(0o777)
    command = next(part for part in closing[0].split("&&") if "chmod" in part).replace(
        "/opt/wfm", str(tmp_path / "opt/wfm")
    )
    subprocess.run(command, shell=True, check=True)
    modes = {each.name: each.stat().st_mode & 0o777 for each in (code.parent, code, code / "cli.py")}
    (code.parent).chmod(0o755)
    code.chmod(0o755)
    assert modes == {"wfm": 0o555, "pipelines": 0o555, "cli.py": 0o444}


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_an_image_starts_outside_its_code_and_imports_nothing_from_where_it_stands(path: Path) -> None:
    found = instructions(path)
    environment = " ".join(rest for word, rest in found if word == "ENV").split()
    assert "PYTHONSAFEPATH=1" in environment
    assert "PYTHONNOUSERSITE=1" in environment
    assert [rest for word, rest in found if word == "WORKDIR"][-1] == "/home/wfm"


def test_there_are_three_images() -> None:
    assert [path.stem for path in IMAGES] == ["control", "curation", "training"]

"""The wheel: made by `./dev wheel`, installed into an empty environment, run as its user would.

pyarrow and torch are linked from the build's own environment into each one made here.
"""

import base64
import functools
import hashlib
import http.server
import os
import pathlib
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import zipfile

import pytest
from conftest import (
    EXAMPLE_DATA,
    EXAMPLE_MODEL,
    ROOT,
    Lorry,
    Server,
    find_free_port,
    import_example,
    on,
    tree_digest,
    wait_until_ready,
)

BUILT_WITH = next((ROOT / ".venv/lib").glob("python3*/site-packages"), None)
CANNOT = (75, "not root and no sudo")  # exit code without a network; words without rights


@pytest.fixture(scope="module")
def wheel(lorry_binary):
    if lorry_binary.parent.name != "release":
        pytest.skip("the wheel is made of the release build")
    if not shutil.which("apt-get"):
        pytest.skip("the wheel is made on Debian or Ubuntu: no apt-get here")
    made = subprocess.run([ROOT / "dev", "wheel"], capture_output=True, text=True, timeout=1500)
    if made.returncode == CANNOT[0] or CANNOT[1] in made.stderr:
        pytest.skip(made.stderr.strip().splitlines()[-1])
    assert made.returncode == 0, made.stderr
    return ROOT / made.stdout.strip()


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A PATH on which there is no compiler, no Python and no libcurl's curl."""
    directory = tmp_path_factory.mktemp("tools")
    (directory / "readlink").symlink_to(shutil.which("readlink"))
    return str(directory)


def environment(directory, wheel, packages=("pyarrow", "torch", "nvidia")):
    """A virtual environment with the wheel, and with links to some packages."""
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    site = next(directory.glob("lib/python3*/site-packages"))
    for package in packages:
        (site / package).symlink_to(BUILT_WITH / package)
    pip = [directory / "bin/python", "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True)
    return directory


@pytest.fixture(scope="module")
def home(wheel, tmp_path_factory):
    """The environment that most tests here only read; its path has a blank."""
    return environment(tmp_path_factory.mktemp("home of the wheel") / "env", wheel)


@pytest.fixture(scope="module")
def alone(wheel, tmp_path_factory):
    """One without pyarrow and torch."""
    return environment(tmp_path_factory.mktemp("alone") / "env", wheel, ())


@pytest.fixture(scope="module")
def installed(home, tools, tmp_path_factory):
    """Runs the installed program as `lorry` runs the built one."""
    return program_of(home, tools, tmp_path_factory.mktemp("cwd"))


def program_of(home, tools, directory, **variables):
    program = Lorry(home / "bin/lorry", directory)
    unset = {"LD_LIBRARY_PATH", "PYTHONPATH", "LORRY_ENGINE"}
    program.env = {k: v for k, v in program.env.items() if k not in unset}
    program.env |= {"PATH": tools, **variables}
    return program


def site_packages(home):
    return next(home.glob("lib/python3*/site-packages"))


def copy_of(home, directory, packages):
    """The same environment elsewhere, with other packages."""
    shutil.copytree(home, directory, symlinks=True)
    for name in ("pyarrow", "torch", "nvidia"):
        (site_packages(directory) / name).unlink(missing_ok=True)
    for name, path in packages.items():
        (site_packages(directory) / name).symlink_to(path)
    return directory


def one_error(done):
    """The only line that a failed run says."""
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


# ---- what is in it -------------------------------------------------------------------------------


def test_wheel_is_small_and_its_record_is_true(wheel):
    assert wheel.stat().st_size < 15e6
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
        modes = {entry.filename: entry.external_attr >> 16 & 0o777 for entry in archive.infolist()}
    record_name = next(name for name in files if name.endswith(".dist-info/RECORD"))
    recorded = {}
    for line in files.pop(record_name).decode().splitlines():
        name, digest, size = line.rsplit(",", 2)
        recorded[name] = (digest, size)
    assert recorded.pop(record_name) == ("", "")
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        assert recorded.pop(name) == (f"sha256={digest}", str(len(data))), name
    assert recorded == {}
    for name in ("lorry/lorry", "lorry/liblorry_engine.so"):
        assert modes[name] == 0o755
    built = (ROOT / "build/release/liblorry_cuda.so").exists()
    assert modes.get("lorry/liblorry_cuda.so") == (0o755 if built else None)


def test_wheel_names_version_needs_and_licences(wheel):
    version = re.search(r'"(.+)"', (ROOT / "src/base/version.h").read_text())[1]
    assert wheel.name == f"lorry-{version}-py3-none-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(wheel) as archive:
        info = f"lorry-{version}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        licences = {
            pathlib.PurePath(name).stem: archive.read(name)
            for name in archive.namelist()
            if "/licenses/" in name
        }
    assert f"\nVersion: {version}\n" in metadata
    assert "\nRequires-Dist: pyarrow==26.0.*\n" in metadata
    assert "\nRequires-Dist: torch==2.11.*\n" in metadata
    linked_in = {"boost", "cli11", "curl", "fmt", "gcc", "nlohmann-json", "openssl", "simdjson"}
    linked_in |= {"spdlog", "utf8proc", "xz", "yaml", "zlib", "zstd"}
    assert set(licences) == linked_in | {"LICENSE"}
    assert all(b"opyright" in text or b"MIT" in text for text in licences.values())


def test_same_inputs_make_the_same_bytes(wheel):
    before = hashlib.sha256(wheel.read_bytes()).hexdigest()
    linked = ROOT / "build/release/wheel"
    subprocess.run(
        [sys.executable, ROOT / "packaging/make_wheel.py", linked, BUILT_WITH],
        check=True,
        capture_output=True,
    )
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == before


def check_elf(folder):
    return subprocess.run(
        [sys.executable, ROOT / "packaging/check_elf.py", folder, BUILT_WITH],
        capture_output=True,
        text=True,
    )


def test_program_reads_the_environment(installed, tmp_path):
    elsewhere = str(tmp_path / "elsewhere")
    assert elsewhere in installed("status", env={"BUCKET_NAME": elsewhere}, code=1).stderr
    warned = installed("status", env={"BUCKET_NAME": elsewhere, "LORRY_BUKET": "x"}, code=1).stderr
    assert "LORRY_BUKET" in warned


def test_no_symbol_is_newer_than_the_tag_says(home):
    checked = check_elf(site_packages(home) / "lorry")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_check_of_symbols_refuses_the_ordinary_build(wheel, lorry_binary):
    checked = check_elf(lorry_binary.parent)
    assert checked.returncode == 1
    assert re.search(r"lorry: \S+ is of GLIBC", checked.stderr)
    assert "needs libfmt.so" in checked.stderr


def test_every_library_is_found_beside_it_or_is_the_systems(home):
    site = site_packages(home)
    for name in ("lorry", "liblorry_engine.so"):
        lines = subprocess.run(
            ["ldd", site / "lorry" / name], check=True, capture_output=True, text=True
        ).stdout.splitlines()
        assert not [line for line in lines if "not found" in line]
        found = [line.split(" => ")[1].split(" (")[0] for line in lines if " => " in line]
        assert found
        for path in found:
            inside = pathlib.Path(path).is_relative_to(site)
            assert inside or path.startswith(("/lib", "/usr/lib")), path


# ---- the README's main job -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def job(installed, tmp_path_factory):
    """A bucket that the installed program has filled and trained in."""
    bucket = tmp_path_factory.mktemp("job") / "bucket"
    import_example(installed, bucket)
    installed("pretokenize", *on(bucket))
    before = tree_digest(bucket)
    installed("train", *on(bucket), "--max-steps", 3, "--learning-rate", "5e-3")
    return bucket, before


def test_installed_program_makes_the_bytes_of_the_built_one(job, prepared):
    assert job[1] == tree_digest(prepared)


def test_installed_program_trains_and_serves(job, installed):
    port = find_free_port()
    process = installed.start(
        "serve", *on(job[0]), "--port", port, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        server = Server(process, port)
        wait_until_ready(server, 60)
        names = [model["id"] for model in server.get("/v1/models")["data"]]
        assert {"demo", "demo/identity"} <= set(names)
        answer = server.answer("demo", "Who are you?")
        assert answer == "I am a small language model. How can I help you?"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_exception_of_libtorch_becomes_one_line(job, installed):
    tokens = 900_000_000_000
    done = installed("serve", *on(job[0]), "--port", 0, "--kv-cache-tokens", tokens, code=1)
    assert "can't allocate memory" in done.stderr.strip().splitlines()[-1]


# ---- how it is found -----------------------------------------------------------------------------


def test_launcher_follows_links_with_blanks(home, tools, tmp_path):
    first = tmp_path / "first"
    first.symlink_to(home / "bin/lorry")
    (tmp_path / "a b").mkdir()
    second = tmp_path / "a b" / "l orry"
    second.symlink_to("../first")
    assert Lorry(second, tmp_path)("--version", env={"PATH": tools}).stdout.startswith("lorry ")
    by_path = subprocess.run(
        ["sh", "-c", "cd / && 'l orry' --version"],
        env={"PATH": f"{second.parent}:{tools}:/bin"},
        capture_output=True,
        text=True,
    )
    assert by_path.stdout.startswith("lorry "), by_path.stderr


def test_launcher_hands_over_arguments_and_exit_code(installed):
    done = installed("import-dataset", "a  b*", code=1)
    assert done.stderr.startswith("error: a  b*: no file matches")
    assert installed("no verb", code=2).stderr.startswith("error: there is no verb 'no verb'")


def test_pip_target_has_the_same_shape(home, wheel, tools, tmp_path):
    target = tmp_path / "target"
    subprocess.run(
        [home / "bin/python", "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
        + ["--target", target, wheel],
        check=True,
    )
    (target / "pyarrow").symlink_to(BUILT_WITH / "pyarrow")
    program = Lorry(target / "bin/lorry", tmp_path)
    assert program("--version", env={"PATH": tools}).stdout.startswith("lorry ")


def test_without_pyarrow_one_line_says_what_to_install(alone, tools, tmp_path):
    line = one_error(program_of(alone, tools, tmp_path)("--help", code=None))
    assert re.search(r"needs libarrow\.so\.2600.*pip install 'pyarrow==26\.0\.\*'", line)


def test_packages_of_the_environments_python_are_found(alone, tools, tmp_path, job):
    """As in a virtual environment over an image's packages."""
    elsewhere = tmp_path / "image's packages"
    elsewhere.mkdir()
    for name in ("pyarrow", "torch", "nvidia"):
        (elsewhere / name).symlink_to(BUILT_WITH / name)
    program = program_of(alone, tools, tmp_path, PYTHONPATH=str(elsewhere))
    assert program.json("status", "--bucket", job[0], "--json")["datasets"]
    other = tmp_path / "bucket"
    shutil.copytree(job[0], other)
    assert "trained: 1 step" in program("train", *on(other), "--fresh", "--max-steps", 1).stderr


def test_data_verbs_need_no_torch_and_training_says_what_to_install(home, tools, tmp_path):
    arrow = {"pyarrow": BUILT_WITH / "pyarrow"}
    program = program_of(copy_of(home, tmp_path / "env", arrow), tools, tmp_path)
    bucket = tmp_path / "bucket"
    program("import-dataset", EXAMPLE_DATA, "--bucket", bucket, "--dataset", "identity")
    program("import-model", EXAMPLE_MODEL, "--bucket", bucket, "--model", "demo")
    program("pretokenize", *on(bucket))
    line = one_error(program("train", *on(bucket), code=None))
    assert re.search(r"needs libtorch 2\.11, which was not found; pip install 'torch==2\.11", line)


def fake_torch(directory, version):
    """A torch package of another release, with none of its symbols."""
    (directory / "lib").mkdir(parents=True)
    (directory / "version.py").write_text(f"__version__ = '{version}'\n")
    for name in ("libtorch_cpu.so", "libc10.so"):
        subprocess.run(
            [
                "cc",
                "-shared",
                f"-Wl,-soname,{name}",
                "-o",
                directory / "lib" / name,
                "-x",
                "c",
                "/dev/null",
            ],
            check=True,
        )
    return directory


@pytest.mark.parametrize("version", ["2.10.0", "2.12.1+cu130"])
def test_libtorch_of_another_release_is_refused(home, tools, tmp_path, prepared, version):
    packages = {
        "pyarrow": BUILT_WITH / "pyarrow",
        "torch": fake_torch(tmp_path / "torch", version),
    }
    program = program_of(copy_of(home, tmp_path / "env", packages), tools, tmp_path)
    bucket = tmp_path / "bucket"
    shutil.copytree(prepared, bucket)
    line = one_error(program("train", *on(bucket), code=None))
    assert f"is {version}, but this lorry needs 2.11; pip install 'torch==2.11.*'" in line


# ---- https ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure_url(tmp_path_factory):
    """An https server for the example's data, and the certificate that it shows."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl program to make a certificate with")
    directory = tmp_path_factory.mktemp("https")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ]
        + [
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            key,
            "-out",
            certificate,
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    handler = functools.partial(Quiet, directory=str(EXAMPLE_DATA.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://localhost:{server.server_port}/{EXAMPLE_DATA.name}", certificate
    server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def trusting(file, directory=""):
    """The environment of a user who trusts what lies there alone."""
    names = ("AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
    return dict.fromkeys(names, "") | {"SSL_CERT_FILE": str(file), "SSL_CERT_DIR": str(directory)}


def test_https_through_the_libcurl_that_is_linked_in(installed, bucket, secure_url):
    url, certificate = secure_url
    env = trusting(certificate) | {"LD_DEBUG": "files", "no_proxy": "localhost"}
    done = installed("import-dataset", url, "--bucket", bucket, "--dataset", "web", env=env)
    assert "91 rows" in done.stderr
    assert "libcurl" not in done.stderr and "libssl" not in done.stderr  # of what was loaded


def test_https_trusts_a_folder_of_certificates(installed, bucket, secure_url, tmp_path):
    url, certificate = secure_url
    shutil.copy(certificate, tmp_path / "one.pem")
    subprocess.run(["openssl", "rehash", tmp_path], check=True)
    env = trusting("", tmp_path) | {"no_proxy": "localhost"}
    done = installed("import-dataset", url, "--bucket", bucket, "--dataset", "web", env=env)
    assert "91 rows" in done.stderr


def test_https_refuses_a_certificate_that_nobody_has_signed(installed, bucket, secure_url):
    url, _ = secure_url
    env = trusting("") | {"no_proxy": "localhost"}
    done = installed("import-dataset", url, "--bucket", bucket, env=env, code=1)
    assert "cannot be trusted" in done.stderr
    assert "SSL_CERT_FILE" in done.stderr

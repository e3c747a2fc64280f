from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.address import parse_address
from farkernel.launcher.configuration import (
    Configuration,
    ConfigurationError,
    KeeperSettings,
    Resources,
    Target,
    UnknownPreset,
    UnknownTarget,
    directories,
    load,
)

GIB = 1 << 30


class Layers:
    """Three places for files, none of which is the machine's own."""

    def __init__(self, base: Path) -> None:
        self.system, self.prefix, self.user = base / "etc", base / "prefix", base / "config"

    def write(self, layer: str, text: str, name: str = "targets.toml") -> Path:
        place = {"system": self.system, "prefix": self.prefix / "etc", "user": self.user}[layer]
        path = place / "farkernel" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    def load(self) -> Configuration:
        return load(self.prefix, self.system, self.user)

    def problems(self) -> list[str]:
        with pytest.raises(ConfigurationError) as raised:
            self.load()
        return [str(problem) for problem in raised.value.problems]


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    return Layers(tmp_path)


EXAMPLE = """
[targets.gpu]
address   = "slurm://login.hpc/gpu"
kernel    = "python3"
modules   = ["cuda/12.4"]
env       = { OMP_NUM_THREADS = "8" }
resources = { gpus = 1, cpus = 8, memory = "64G", time = "4h" }
options   = ["--account=abc123"]
ask       = ["gpus", "time"]
keep      = "12h"
idle      = "2h"
warm      = 0
"""


def test_the_example_of_the_documentation(layers: Layers) -> None:
    layers.write("user", EXAMPLE)
    assert layers.load().targets == {
        "gpu": Target(
            name="gpu",
            address=parse_address("slurm://login.hpc/gpu"),
            kernel="python3",
            modules=("cuda/12.4",),
            env={"OMP_NUM_THREADS": "8"},
            resources=Resources(gpus=1, cpus=8, memory=64 * GIB, time=14400),
            options=("--account=abc123",),
            ask=("gpus", "time"),
            keep=43200,
            idle=7200,
            warm=0,
        )
    }


def test_every_key(layers: Layers) -> None:
    layers.write(
        "user",
        """
        [targets.a]
        address = "ssh://a"
        [targets.all]
        address = "pool:a"
        python = "~/env/bin/python"
        conda = "torch"
        before = ["ulimit -c 0", "umask 077"]
        container = "image.sif"
        unset = ["LD_PRELOAD"]
        cwd = "~/work"
        share = true
        cluster = "dask"
        engine_hosts = ["pi2", "pi@10.0.0.3"]
        policy = "round-robin"
        capacity = 3
        journal = "1G"
        agent_python = ["/opt/python3"]
        keep = "forever"
        idle = "never"
        [targets.all.resources]
        gpu_memory = "40G"
        nodes = 2
        [keeper]
        idle = "never"
        log_size = "1M"
        """,
    )
    configuration = layers.load()
    assert configuration.keeper == KeeperSettings(idle=None, log_size=1 << 20)
    assert configuration.target("all") == Target(
        name="all",
        address=parse_address("pool:a"),
        python="~/env/bin/python",
        conda="torch",
        before="ulimit -c 0\numask 077",
        container="image.sif",
        unset=("LD_PRELOAD",),
        cwd="~/work",
        resources=Resources(gpu_memory=40 * GIB, nodes=2),
        keep=None,
        share=True,
        cluster="dask",
        engine_hosts=("pi2", "pi@10.0.0.3"),
        policy="round-robin",
        capacity=3,
        journal=GIB,
        agent_python=("/opt/python3",),
    )


def test_nothing_is_configured(layers: Layers) -> None:
    configuration = layers.load()
    assert (configuration.targets, configuration.files, configuration.warnings) == ({}, (), ())
    with pytest.raises(UnknownTarget) as raised:
        configuration.target("gpu")
    assert str(raised.value) == (
        "there is no target 'gpu' in the configuration. Add it: farkernel add gpu ADDRESS"
    )


def test_where_the_layers_are(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [Path("/etc/farkernel"), Path(sys.prefix) / "etc/farkernel", home / ".config/farkernel"]
    assert list(directories()) == expected
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative/is/no/good")
    assert list(directories()) == expected
    monkeypatch.setenv("XDG_CONFIG_HOME", "/elsewhere")
    assert directories(prefix="/")[1:] == (Path("/elsewhere/farkernel"),)  # /etc is not read twice


# -- layers ---------------------------------------------------------------------------------------


def test_a_later_layer_overrides_key_by_key(layers: Layers) -> None:
    system = layers.write(
        "system",
        """
        [targets.gpu]
        address = "slurm://login/gpu"
        options = ["--account=site"]
        env = { A = "1", B = "1" }
        resources = { gpus = 1, cpus = 4 }
        """,
    )
    layers.write("prefix", '[targets.gpu]\nenv.B = "2"\n', "10.toml")
    layers.write("prefix", '[targets.gpu]\nenv.C = "3"\nenv.B = "3"\n', "20.toml")
    layers.write("prefix", "this is no TOML", "20.toml~")
    layers.write("prefix", "neither is this", ".#20.toml")
    user = layers.write("user", '[targets.gpu]\noptions = ["--account=me"]\nresources.gpus = 2\n')
    configuration = layers.load()
    target = configuration.target("gpu")
    assert target.env == {"A": "1", "B": "3", "C": "3"}
    assert target.resources == Resources(gpus=2, cpus=4)
    assert target.options == ("--account=me",)
    assert [Path(file).name for file in configuration.files] == [
        "targets.toml",
        "10.toml",
        "20.toml",
        "targets.toml",
    ]
    assert configuration.sources["gpu"][0] == str(system)
    assert configuration.sources["gpu"][-1] == str(user)


def test_defaults_are_under_every_target(layers: Layers) -> None:
    layers.write(
        "system",
        '[defaults]\nkeep = "1h"\nkernel = "python3"\nenv = { A = "1", B = "1" }\nresources.cpus = 2',
    )
    layers.write(
        "user",
        """
        [targets.a]
        address = "ssh://a"
        [targets.b]
        address = "ssh://b"
        python = "/usr/bin/python3"
        keep = "2h"
        env.B = "2"
        resources.gpus = 1
        """,
    )
    a, b = layers.load().targets.values()
    assert (a.keep, a.kernel, a.env, a.resources) == (
        3600,
        "python3",
        {"A": "1", "B": "1"},
        Resources(cpus=2),
    )
    assert (b.keep, b.kernel, b.python) == (7200, None, "/usr/bin/python3")
    assert (b.env, b.resources) == ({"A": "1", "B": "2"}, Resources(gpus=1, cpus=2))


def test_kernel_and_python_replace_each_other(layers: Layers) -> None:
    layers.write(
        "system", '[targets.a]\naddress = "ssh://a"\nkernel = "ir"\nenv = { kernel = "x", python = "y" }\n'
    )
    layers.write("user", '[targets.a]\npython = "python3.12"\n')
    target = layers.load().target("a")
    assert (target.kernel, target.python) == (None, "python3.12")
    assert target.env == {"kernel": "x", "python": "y"}


# -- locks ----------------------------------------------------------------------------------------


def test_a_locked_key_stays(layers: Layers) -> None:
    system = layers.write(
        "system",
        """locked = ["targets.gpu.options", "defaults.keep"]
        [targets.gpu]
        address = "slurm://login/gpu"
        options = ["--account=site"]
        [defaults]
        keep = "1h"
        """,
    )
    user = layers.write(
        "user", '[targets.gpu]\noptions = ["--mine"]\nwarm = 1\n[defaults]\nkeep = "forever"\n'
    )
    configuration = layers.load()
    target = configuration.target("gpu")
    assert (target.options, target.keep, target.warm) == (("--account=site",), 3600, 1)
    assert configuration.warnings == (
        f"{user}:2: targets.gpu.options is not taken: {system}:1 has locked targets.gpu.options",
        f"{user}:5: defaults.keep is not taken: {system}:1 has locked defaults.keep",
    )


def test_a_lock_binds_later_layers_not_its_own(layers: Layers) -> None:
    layers.write(
        "system", 'locked = ["targets.a.warm"]\n[targets.a]\naddress = "ssh://a"\nwarm = 1\n', "10.toml"
    )
    layers.write("system", "[targets.a]\nwarm = 2\n", "20.toml")
    layers.write("prefix", "[targets.a]\nwarm = 3\n")
    assert layers.load().target("a").warm == 2


def test_what_is_locked_need_not_be_asked_for(layers: Layers) -> None:
    layers.write("system", 'locked = ["targets.*.resources.time"]\n' + EXAMPLE)
    found = layers.load()
    assert found.is_locked("targets", "gpu", "resources", "time")
    assert not found.is_locked("targets", "gpu", "resources", "gpus")


def test_a_lock_covers_all_below_and_any_target(layers: Layers) -> None:
    layers.write(
        "system", 'locked = ["targets.*.resources", "targets.*.env.HOME"]\n[targets.a]\naddress = "ssh://a"\n'
    )
    layers.write(
        "user",
        """
        [targets.a]
        resources.gpus = 8
        env = { HOME = "/tmp", LANG = "C" }
        [targets.b]
        address = "ssh://b"
        resources.gpus = 8
        """,
    )
    configuration = layers.load()
    a, b = configuration.targets.values()
    assert (a.resources, b.resources, a.env) == (Resources(), Resources(), {"LANG": "C"})
    assert len(configuration.warnings) == 3


def test_a_locked_kernel_is_not_replaced_by_a_python(layers: Layers) -> None:
    layers.write(
        "system", 'locked = ["targets.a.kernel"]\n[targets.a]\naddress = "ssh://a"\nkernel = "site"\n'
    )
    layers.write("user", '[targets.a]\npython = "python3"\n')
    target = layers.load().target("a")
    assert (target.kernel, target.python) == ("site", None)


@pytest.mark.parametrize("lock", ["targets", "targets.*", "targets.*.address", "targets.mine"])
def test_locked_targets_cannot_be_added(layers: Layers, lock: str) -> None:
    layers.write("system", f'locked = ["{lock}"]\n[targets.a]\naddress = "ssh://a"\n')
    layers.write("user", '[targets.mine]\naddress = "ssh://mine"\n')
    configuration = layers.load()
    assert list(configuration.targets) == ["a"]
    assert len(configuration.warnings) == 1


def test_locks_with_wrong_keys(layers: Layers) -> None:
    path = layers.write(
        "system",
        'locked = [\n  "targets.gpu.option",\n  "target",\n  "targets.a.env.X.Y",\n  "",\n  \'targets."pi.1".keep\',\n]',
    )
    assert layers.problems() == [
        f"{path}:2: locked key 'targets.gpu.option': unknown key 'option'. Did you mean 'options'?",
        f"{path}:3: locked key 'target': unknown key 'target'. Did you mean 'targets'?",
        f"{path}:4: locked key 'targets.a.env.X.Y': there is nothing below the key before 'Y'. Lock the key itself",
        f"{path}:5: locked key '': is empty. Name a key, such as \"targets.gpu.options\"",
    ]


# -- errors ---------------------------------------------------------------------------------------


def test_all_errors_of_all_files_at_once(layers: Layers) -> None:
    system = layers.write("system", "[keeper]\nidel = 1\n[target.a]\n")
    user = layers.write(
        "user",
        """\
[targets.gpu]
adress = "ssh://a"
address = "shh://a"
gpus = 1
env = { OMP_NUM_THREADS = 8, "A-B" = "1" }
resources = { gpu = 1, time = 4 }
options = [
  "--a",
  1,
]
modules = "cuda"
warm = true
[targets."a b"]
[defaults]
address = "local:"
[[targets.list]]
""",
    )
    assert layers.problems() == [
        f"{system}:2: unknown key 'idel' in [keeper]. Did you mean 'idle'?",
        f"{system}:3: unknown key 'target'. Did you mean 'targets'?",
        f"{user}:2: unknown key 'adress' in [targets.gpu]. Did you mean 'address'?",
        f"{user}:3: 'address' in [targets.gpu] is wrong: the address 'shh://a' has an unknown scheme 'shh'. "
        "Write ssh://host or ssh://user@host:port",
        f"{user}:4: unknown key 'gpus' in [targets.gpu]. It belongs into 'resources': resources = {{ gpus = … }}",
        f"{user}:5: 'OMP_NUM_THREADS' in [targets.gpu.env] has a value of the wrong kind, 8. "
        'Write a string (numbers too stand in quotes: "8")',
        f"{user}:5: 'env' in [targets.gpu] holds 'A-B', which cannot be the name of an environment variable. "
        "Use letters, digits and '_', with no digit first",
        f"{user}:6: unknown key 'gpu' in [targets.gpu.resources]. Did you mean 'gpus'?",
        f"{user}:6: 'time' in [targets.gpu.resources] has a value of the wrong kind, 4. "
        'Write a duration such as "90s", "30m", "4h" or "2d"',
        f"{user}:9: 'options' in [targets.gpu] has a value of the wrong kind, 1. Write a string",
        f"{user}:11: 'modules' in [targets.gpu] has a value of the wrong kind, 'cuda'. Write a list of strings",
        f"{user}:12: 'warm' in [targets.gpu] has a value of the wrong kind, true. Write a whole number, 0 or more",
        f"{user}:13: 'a b' cannot be the name of a target. Begin with a letter or digit; letters, digits, '.', '_' "
        "and '-' may follow; 64 in all",
        f"{user}:15: unknown key 'address' in [defaults]. Each target has its own address",
        f"{user}:16: 'targets.list' must be a table, not a list. Write it as [targets.list]",
    ]


def test_one_error_is_one_sentence_and_what_to_do(layers: Layers) -> None:
    path = layers.write("user", '[targets.a]\naddress = "ssh://a"\nkernl = "x"\n')
    with pytest.raises(ConfigurationError) as raised:
        layers.load()
    assert str(raised.value) == f"{path}:3: unknown key 'kernl' in [targets.a]. Did you mean 'kernel'?"
    assert raised.value.as_dict()["kind"] == "configuration"


def test_several_errors_are_a_list(layers: Layers) -> None:
    path = layers.write("user", "a = 1\nb = 2\n")
    with pytest.raises(ConfigurationError) as raised:
        layers.load()
    known = "Known here: targets, defaults, keeper, locked"
    assert str(raised.value) == (
        f"the configuration has 2 errors:\n  {path}:1: unknown key 'a'. {known}\n  {path}:2: unknown key 'b'. {known}"
    )


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        (b"a = 1\nb = \n", 2, "is not valid TOML: Invalid value"),
        (b"[a]\n[b]\n[a]\n", 3, "is not valid TOML: Cannot declare ('a',) twice"),
        (b"a = 1\nb = '\xff'\n", 2, "is not UTF-8"),
        (b"a = " + b"[" * 100_000, None, "is nested too deeply"),
        (b"a = 1" + b"0" * 5000, None, "is not valid TOML: Exceeds the limit"),
        (b"#" * (5 << 20), None, "is larger than 4 MiB"),
    ],
)
def test_files_that_are_no_toml(layers: Layers, content: bytes, line: int | None, what: str) -> None:
    path = layers.write("user", "")
    path.write_bytes(content)
    (problem,) = layers.problems()
    assert problem.startswith(f"{path}{'' if line is None else f':{line}'}: {what}")


def test_what_cannot_be_read(layers: Layers) -> None:
    path = layers.write("user", "")
    path.unlink()
    path.mkdir()
    assert layers.problems() == [f"{path}: cannot be read: Is a directory. Mend or remove the file"]
    path.rmdir()
    path.symlink_to("nowhere")
    assert layers.problems() == [
        f"{path}: cannot be read: No such file or directory. Mend or remove the file"
    ]


def test_a_target_needs_an_address(layers: Layers) -> None:
    path = layers.write("user", "\n[targets.a]\nwarm = 1\n")
    assert layers.problems() == [
        f"{path}:2: the target 'a' has no address. Add one: address = \"ssh://host\""
    ]


def test_a_table_has_kernel_or_python(layers: Layers) -> None:
    path = layers.write("user", '[targets.a]\naddress = "local:"\nkernel = "ir"\npython = "python3"\n')
    assert layers.problems() == [f"{path}:4: [targets.a] has both 'kernel' and 'python'. Keep one of them"]


def test_pools_have_targets_as_members(layers: Layers) -> None:
    path = layers.write(
        "user",
        '[targets]\npi-1.address = "ssh://p"\nall.address = "pool:pi-1,pi_1"\nmore.address = "pool:all"\n',
    )
    assert layers.problems() == [
        f"{path}:3: the pool 'all' names 'pi_1', which is no target. Did you mean 'pi-1'?",
        f"{path}:4: the pool 'more' names 'all', itself a pool. Name that pool's members instead",
    ]


def test_an_opencl_device_is_one(layers: Layers) -> None:
    path = layers.write(
        "user",
        '[defaults]\nresources.opencl = "gpu"\n[targets]\na.address = "local:"\na.resources.gpus = 2\n'
        'b.address = "local:"\nb.resources.gpus = 1\n',
    )
    assert layers.problems() == [
        f"{path}:2: the target 'a' asks for 2 GPUs and for an OpenCL device. "
        "OpenCL devices are given out one at a time: leave out gpus"
    ]


def test_errors_hold_no_control_characters(layers: Layers) -> None:
    layers.write(
        "user", r'"\u001b[31m" = 1' "\n" r"[targets.a]" "\n" r'"x\u0007\n" = 1' "\n" r'env."\u001b" = "1"'
    )
    assert all(problem.isprintable() for problem in layers.problems())


# -- menu entries ---------------------------------------------------------------------------------


def test_a_menu_entry_has_its_settings_on_top(layers: Layers) -> None:
    layers.write("user", EXAMPLE)
    target = layers.load().resolve(
        {"target": "gpu", "python": "~/t/bin/python", "resources": {"gpus": 2}}, "torch"
    )
    assert (target.name, target.kernel, target.python) == ("gpu", None, "~/t/bin/python")
    assert target.resources == Resources(gpus=2, cpus=8, memory=64 * GIB, time=14400)
    assert target.warnings == ()


def test_a_menu_entry_with_nothing_but_an_address(layers: Layers) -> None:
    layers.write("user", '[defaults]\nkeep = "1h"\n[targets.ssh---me-host]\naddress = "ssh://other"\n')
    target = layers.load().resolve({"address": "ssh://me@host", "argv": ["kernel", "{connection_file}"]})
    assert (target.name, str(target.address), target.keep) == ("ssh---me-host-2", "ssh://me@host", 3600)


def test_a_menu_entry_does_not_overrule_a_lock(layers: Layers) -> None:
    path = layers.write("system", 'locked = ["targets.*.resources.time"]\n' + EXAMPLE)
    configuration = layers.load()
    target = configuration.resolve({"target": "gpu", "resources": {"time": "8h", "gpus": 2}}, "long")
    assert (target.resources.time, target.resources.gpus) == (14400, 2)
    assert target.warnings == (
        f"menu entry long: targets.gpu.resources.time is not taken: {path}:1 has locked targets.*.resources.time",
    )
    assert configuration.resolve({"target": "gpu", "resources": {"time": "4h"}}).warnings == ()
    assert configuration.target("gpu").resources.gpus == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "menu entry x: it names no target. Install it again: farkernel install NAME"),
        ({"target": ["gpu"]}, "menu entry x: it names no target. Install it again: farkernel install NAME"),
        ({"target": "cpu"}, "there is no target 'cpu' in the configuration. Did you mean 'gpu'?"),
        ({"target": "gpu", "kernl": "a"}, "menu entry x: unknown key 'kernl' in [targets.gpu]. Did you mean 'kernel'?"),
        ({"address": "ssh:"}, "menu entry x: 'address' in [targets.ssh] is wrong: '//' is missing after the colon in "
         "the address 'ssh:'. Write ssh://host or ssh://user@host:port"),
        ({"address": "pool:gpux"}, "menu entry x: the pool 'pool-gpux' names 'gpux', which is no target. "
         "Did you mean 'gpu'?"),
        ({"target": "gpu", "presets": {}}, "menu entry x: it has 'presets'. Write preset = \"NAME\", and the preset into "
         "the target's table"),
        ({"target": "gpu", "argv": "x"}, "menu entry x: 'argv' has a value of the wrong kind, 'x'. "
         "Write a list of strings"),
    ],
)  # fmt: skip
def test_menu_entries_with_errors(layers: Layers, settings: dict[str, object], message: str) -> None:
    layers.write("user", EXAMPLE)
    with pytest.raises((ConfigurationError, UnknownTarget)) as raised:
        layers.load().resolve(settings, "x")
    assert str(raised.value) == message


PRESETS = """
[targets.gpu.presets.big]
resources = { gpus = 4, time = "1d" }
options   = ["--account=whole"]
[targets.gpu.presets.quick]
resources.time = "10m"
ask = []
"""


def test_a_preset_goes_before_the_target_and_the_entry_before_both(layers: Layers) -> None:
    layers.write("user", EXAMPLE + PRESETS)
    found = layers.load()
    assert found.target("gpu").presets == ("big", "quick")
    big = found.resolve({"target": "gpu", "preset": "big", "resources": {"time": "2h"}})
    assert big.resources == Resources(gpus=4, cpus=8, memory=64 * GIB, time=7200)
    assert (big.options, big.ask, big.name) == (("--account=whole",), ("gpus", "time"), "gpu")
    quick = found.resolve({"target": "gpu", "preset": "quick"})
    assert (quick.resources.time, quick.resources.gpus, quick.ask) == (600, 1, ())
    assert found.resolve({"target": "gpu"}).resources.gpus == 1


def test_presets_come_from_several_layers(layers: Layers) -> None:
    layers.write("system", EXAMPLE + PRESETS)
    layers.write(
        "user", '[targets.gpu.presets.big]\nresources.gpus = 2\n[targets.gpu.presets.mine]\nkeep = "1d"\n'
    )
    found = layers.load()
    assert found.target("gpu").presets == ("big", "quick", "mine")
    resources = found.resolve({"target": "gpu", "preset": "big"}).resources
    assert (resources.gpus, resources.time) == (2, 86400)


def test_a_preset_does_not_get_around_a_lock(layers: Layers) -> None:
    """What the operator's own presets say holds; a user's must not bring in more."""
    system = layers.write(
        "system", 'locked = ["targets.gpu.resources", "targets.gpu.options"]\n' + EXAMPLE + PRESETS
    )
    user = '[targets.gpu.presets.big]\nresources.gpus = 8\n[targets.gpu.presets.mine]\noptions = ["-x"]\nkeep = "1h"'
    path = layers.write("user", user)
    found = layers.load()
    assert found.resolve({"target": "gpu", "preset": "big"}).resources.gpus == 4
    mine = found.resolve({"target": "gpu", "preset": "mine"})
    assert (mine.options, mine.keep) == (("--account=abc123",), 3600)
    assert found.warnings == (
        f"{path}:2: targets.gpu.presets.big.resources.gpus is not taken: {system}:1 has locked targets.gpu.resources",
        f"{path}:4: targets.gpu.presets.mine.options is not taken: {system}:1 has locked targets.gpu.options",
    )


def test_presets_with_errors(layers: Layers) -> None:
    path = layers.write("user", EXAMPLE + """
[targets.gpu.presets."a b"]
keep = "1h"
[targets.gpu.presets.empty]
[targets.gpu.presets.wrong]
gpus = 4
kernel = "ir"
resources.time = 4
""")  # fmt: skip
    assert layers.problems() == [
        f"{path}:14: 'a b' cannot be the name of a preset. Begin with a letter or digit; letters, digits, '.', '_' and "
        "'-' may follow; 64 in all",
        f"{path}:16: [targets.gpu.presets.empty] says nothing. Say what is different: resources = {{ … }}",
        f"{path}:18: unknown key 'gpus' in [targets.gpu.presets.wrong]. It belongs into 'resources': "
        "resources = { gpus = … }",
        f"{path}:19: unknown key 'kernel' in [targets.gpu.presets.wrong]. The menu entry says which kernel: "
        "farkernel install NAME --preset PRESET --kernel KERNEL",
        f"{path}:20: 'time' in [targets.gpu.presets.wrong.resources] has a value of the wrong kind, 4. Write a "
        'duration such as "90s", "30m", "4h" or "2d"',
    ]


def test_a_preset_that_is_not_there(layers: Layers) -> None:
    layers.write("user", EXAMPLE + PRESETS)
    with pytest.raises(UnknownPreset) as raised:
        layers.load().resolve({"target": "gpu", "preset": "bog"}, "x")
    assert str(raised.value) == "the target 'gpu' has no preset 'bog'. Did you mean 'big'?"
    layers.write("user", EXAMPLE)
    with pytest.raises(UnknownPreset) as raised:
        layers.load().resolve({"target": "gpu", "preset": "big"}, "x")
    assert str(raised.value) == (
        "the target 'gpu' has no preset 'big'. Write it into the configuration: [targets.gpu.presets.big]"
    )


def test_an_address_alone_does_not_get_around_locked_targets(layers: Layers) -> None:
    path = layers.write("system", 'locked = ["targets"]\n' + EXAMPLE)
    with pytest.raises(ConfigurationError) as raised:
        layers.load().resolve({"address": "ssh://host"}, "x")
    assert str(raised.value) == (
        f"menu entry x: targets.ssh---host.address is not taken: {path}:1 has locked targets. Use one of gpu"
    )


# -- anything at all ------------------------------------------------------------------------------

words = st.sampled_from(
    [
        "targets",
        "gpu",
        "address",
        "env",
        "resources",
        "gpus",
        "locked",
        "defaults",
        "keeper",
        "kernel",
        "'a b'",
        '"\\u0000"',
    ]
)
tokens = words | st.sampled_from(
    [
        ".",
        " = ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "\n",
        '"ssh://a"',
        '"""',
        "'''",
        "#",
        "1",
        "true",
        '"4h"',
        "[[",
        "]]",
        "\\",
    ]
)
lines = st.builds("{} = {}".format, st.lists(words, min_size=1, max_size=3).map(".".join), tokens)


@given(st.lists(tokens | lines | words.map("\n[targets.{}]\n".format), max_size=25).map("".join) | st.text())
def test_any_text_is_a_configuration_or_a_configuration_error(
    text: str,
) -> None:
    check(lambda path: path.write_text(text, "utf-8", errors="replace"))


@given(st.binary())
def test_any_bytes_are_a_configuration_or_a_configuration_error(data: bytes) -> None:
    check(lambda path: path.write_bytes(data))


def check(write: Callable[[Path], object]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as base:
        layers = Layers(Path(base))
        write(layers.write("user", ""))
        try:
            layers.load()
        except ConfigurationError as error:
            assert error.problems
            assert all(str(problem) for problem in error.problems)


def test_importing_it_is_cheap() -> None:
    """What is needed only by those who have a configuration, or who mistyped, is imported only then."""
    code = "import sys, farkernel.launcher.configuration; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    loaded = set(done.stdout.split())
    assert "farkernel.launcher.configuration" in loaded
    assert not loaded & {"tomllib", "difflib", "asyncio", "argparse", "subprocess", "zmq", "jupyter_client"}

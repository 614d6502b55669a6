//! What this machine has for GPUs: its driver, its GPUs, and the places where libraries are. Only files and variables are
//! read, and the driver's own tool is asked; no library is loaded.

use std::{
    env,
    ffi::OsString,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The driver's tool.
const TOOL: &str = "nvidia-smi";

/// What it is asked of its GPUs.
const FACTS: &str = "driver_version,memory.total,compute_cap,name";

/// How long the tool may take. It waits for a driver that hangs.
const TOOL_TIMEOUT: Duration = Duration::from_secs(20);

/// The most that is read of its answer, in bytes: a line per GPU.
const MAX_ANSWER: u64 = 64 << 10;

/// A machine. Tests pass another one than this.
#[derive(Clone, Copy)]
pub(crate) struct Machine<'a> {
    /// The root of its files.
    pub(super) root: &'a Path,
    /// Returns an environment variable.
    pub(super) variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// Returns what the driver's tool says of its GPUs, a line for each; `None` if the machine lacks the tool or it fails.
    pub(super) tool: &'a dyn Fn() -> Option<String>,
}

/// A GPU, as far as the driver says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// Its name, such as `NVIDIA H100 80GB HBM3`.
    pub(crate) name: String,
    /// Its memory in MiB.
    pub(crate) memory_mib: Option<u64>,
    /// Its compute capability, such as `9.0`.
    pub(crate) capability: Option<String>,
}

/// The driver and its GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gpus {
    /// The version of the driver, such as `580.95.05`.
    pub(crate) driver: Option<String>,
    /// In the order of the driver.
    pub(crate) list: Vec<Gpu>,
    /// Whether one is plugged in, with a driver or without.
    pub(crate) is_plugged_in: bool,
}

impl Machine<'static> {
    /// The machine on which the program runs.
    pub(crate) fn this() -> Self {
        Self { root: Path::new("/"), variable: &|name| env::var_os(name), tool: &|| ask_tool(FACTS) }
    }
}

impl Machine<'_> {
    /// Returns a path of the machine that is written from its root.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Returns the paths that a variable holds. A relative one depends on the working directory, which may be a stranger's,
    /// and is left out.
    pub(super) fn paths(&self, name: &str) -> Vec<PathBuf> {
        let value = (self.variable)(name).unwrap_or_default();
        env::split_paths(&value).filter(|path| path.is_absolute()).collect()
    }

    /// Asks for the driver and its GPUs.
    pub(crate) fn gpus(&self) -> Gpus {
        let lines = (self.tool)().unwrap_or_default();
        let (drivers, list): (Vec<String>, Vec<Gpu>) = lines.lines().filter_map(gpu_of_tool).unzip();
        let driver = drivers.into_iter().next().or_else(|| self.driver_of_files());
        let list = if list.is_empty() { self.gpus_of_files() } else { list };
        let devices = self.path("/sys/bus/pci/devices");
        let is_plugged_in = names(&devices).iter().any(|name| is_gpu(&devices.join(name)));
        Gpus { driver, list, is_plugged_in }
    }

    /// Returns how many of the driver's GPUs CUDA shows to this process, from 0 on: `CUDA_VISIBLE_DEVICES` names them, up to
    /// the first that is none.
    pub(crate) fn visible(&self, gpus: &Gpus) -> usize {
        let Some(value) = (self.variable)("CUDA_VISIBLE_DEVICES") else { return gpus.list.len() };
        let value = value.to_string_lossy();
        let is_one = |entry: &&str| match entry.parse::<usize>() {
            Ok(number) => number < gpus.list.len(),
            Err(_) => entry.starts_with("GPU-") || entry.starts_with("MIG-"),
        };
        value.split(',').map(str::trim).take_while(is_one).count()
    }

    /// Returns the position in the driver's list of the GPU that CUDA calls `number`.
    pub(super) fn position(&self, number: u32) -> usize {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let value = (self.variable)("CUDA_VISIBLE_DEVICES").unwrap_or_default();
        let entry = value.to_string_lossy().split(',').nth(number).and_then(|entry| entry.trim().parse().ok());
        entry.unwrap_or(number)
    }

    /// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue …": the first word that is a version.
    fn driver_of_files(&self) -> Option<String> {
        let text = fs::read_to_string(self.path("/proc/driver/nvidia/version")).ok()?;
        let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
        text.split_whitespace().find(is_version).map(str::to_owned)
    }

    /// The kernel's list of GPUs has their names. A container may have their devices alone.
    fn gpus_of_files(&self) -> Vec<Gpu> {
        let named = |name: String| Gpu { name, memory_mib: None, capability: None };
        let listed = names(&self.path("/proc/driver/nvidia/gpus")).into_iter().map(|bus| {
            let file = self.path("/proc/driver/nvidia/gpus").join(bus).join("information");
            let text = fs::read_to_string(file).unwrap_or_default();
            let model = text.lines().find_map(|line| line.strip_prefix("Model:")).unwrap_or_default().trim();
            named(if model.is_empty() { "an NVIDIA GPU".to_owned() } else { model.to_owned() })
        });
        let listed: Vec<Gpu> = listed.collect();
        if !listed.is_empty() {
            return listed;
        }
        // Linux under Windows has one device for all.
        let is_device = |name: &String| {
            name == "dxg" || name.strip_prefix("nvidia").is_some_and(|number| number.parse::<u32>().is_ok())
        };
        names(&self.path("/dev")).into_iter().filter(is_device).map(named).collect()
    }
}

/// Whether a PCI device is a display or 3D controller of NVIDIA.
fn is_gpu(device: &Path) -> bool {
    let begins_with =
        |file, value: &str| fs::read_to_string(device.join(file)).is_ok_and(|text| text.starts_with(value));
    begins_with("vendor", "0x10de") && begins_with("class", "0x03")
}

/// Returns the names in a folder, in order; none if it cannot be read.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Reads a line of the tool: version of the driver, MiB, capability, name. What it does not know is in brackets.
fn gpu_of_tool(line: &str) -> Option<(String, Gpu)> {
    let mut fields = line.splitn(4, ',').map(str::trim);
    let (driver, memory, capability, name) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let capability = Some(capability).filter(|text| text.parse::<f32>().is_ok()).map(str::to_owned);
    Some((driver.to_owned(), Gpu { name: name.to_owned(), memory_mib: memory.parse().ok(), capability }))
}

/// Returns the memory in MiB that is in use on each of the driver's GPUs, by this program and by others; `None` if the driver
/// does not say.
pub(super) fn memory_used() -> Option<Vec<Option<u64>>> {
    Some(ask_tool("memory.used")?.lines().map(|line| line.trim().parse().ok()).collect())
}

/// Runs the tool without a shell, with nothing of this process but the `PATH`, and not in the working directory.
fn ask_tool(query: &str) -> Option<String> {
    let mut command = Command::new(TOOL);
    command.arg(format!("--query-gpu={query}")).arg("--format=csv,noheader,nounits");
    command.current_dir("/").env_clear().envs(env::var_os("PATH").map(|path| ("PATH", path)));
    answer(command, TOOL_TIMEOUT)
}

/// Returns what a command writes to stdout; `None` if it cannot be started, fails, or takes longer than `timeout`.
fn answer(mut command: Command, timeout: Duration) -> Option<String> {
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut text = String::new();
    let status = loop {
        match child.try_wait().ok()? {
            Some(status) => break status,
            None if started.elapsed() > timeout => {
                let _ = child.kill();
                // A process that waits for a driver dies only when that answers, so nobody waits for it.
                return None;
            }
            None => thread::sleep(Duration::from_millis(10)),
        }
    };
    child.stdout.take()?.take(MAX_ANSWER).read_to_string(&mut text).ok()?;
    status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn machine<'a>(root: &'a Path, tool: &'a dyn Fn() -> Option<String>) -> Machine<'a> {
        Machine { root, variable: &|_| None, tool }
    }

    #[test]
    fn the_tool_of_the_driver_says_what_there_is() {
        let lines = "580.95.05, 81559, 9.0, NVIDIA H100 80GB HBM3\n580.95.05, [N/A], 12.1, NVIDIA GB10, mobile\n";
        let gpus = machine(Path::new("/nowhere"), &|| Some(lines.to_owned())).gpus();
        assert_eq!(gpus.driver.as_deref(), Some("580.95.05"));
        let [first, second] = gpus.list.as_slice() else { panic!("{gpus:?}") };
        assert_eq!((first.memory_mib, first.capability.as_deref()), (Some(81559), Some("9.0")));
        assert_eq!((second.name.as_str(), second.memory_mib), ("NVIDIA GB10, mobile", None));
    }

    #[test]
    fn without_the_tool_the_kernel_says_what_there_is() {
        let root = tempfile::tempdir().unwrap();
        let none = machine(root.path(), &|| None);
        assert_eq!(none.gpus(), Gpus::default());
        // A container with the devices alone.
        for name in ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"] {
            write(root.path(), &format!("dev/{name}"), "");
        }
        assert_eq!(none.gpus().list.len(), 2);
        write(
            root.path(),
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\nGCC version:  gcc 12.2.0\n",
        );
        write(root.path(), "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t NVIDIA L4\nIRQ:   \t 16\n");
        let gpus = none.gpus();
        assert_eq!(gpus.driver.as_deref(), Some("570.86.15"));
        assert_eq!(gpus.list.iter().map(|gpu| gpu.name.as_str()).collect::<Vec<_>>(), ["NVIDIA L4"]);
    }

    #[test]
    fn cuda_shows_the_gpus_that_its_variable_names() {
        let gpu = Gpu { name: "a".to_owned(), memory_mib: None, capability: None };
        let gpus = Gpus { list: vec![gpu; 4], ..Gpus::default() };
        for (value, count) in [("0,1", 2), ("3", 1), ("", 0), ("-1", 0), ("1,-1,2", 1), ("0, 9, 1", 1), ("GPU-1f,2", 2)]
        {
            let variable = |name: &str| (name == "CUDA_VISIBLE_DEVICES").then(|| value.into());
            let machine = Machine { variable: &variable, ..machine(Path::new("/"), &|| None) };
            assert_eq!(machine.visible(&gpus), count, "{value}");
            let first = value.split(',').next().unwrap().parse().unwrap_or(0);
            assert_eq!(machine.position(0), first, "{value}");
        }
        assert_eq!(machine(Path::new("/"), &|| None).visible(&gpus), 4);
    }

    #[test]
    fn a_tool_that_hangs_or_fails_says_nothing() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        assert_eq!(answer(shell("echo a line"), TOOL_TIMEOUT).as_deref(), Some("a line\n"));
        assert_eq!(answer(shell("echo a line; exit 9"), TOOL_TIMEOUT), None);
        assert_eq!(answer(Command::new("/no/such/tool"), TOOL_TIMEOUT), None);
        let started = Instant::now();
        assert_eq!(answer(shell("exec sleep 60"), Duration::from_millis(50)), None);
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}

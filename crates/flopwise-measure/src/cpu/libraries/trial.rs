//! A first use of a library in a child process: one that kills its process kills the child.
//!
//! Not here: what is tried. Libraries end a process in more ways than a caller can catch: an
//! illegal instruction in an initialiser, `exit` when a part is missing (MKL), a crash in a product.
//! The child is a copy made by `fork`, which takes about a millisecond. Only the calling thread
//! lives on in it, so a lock that another thread held stays held: the child then waits for it until
//! its alarm ends it, and a good library is left out with a reason. Where there is no `fork`, a
//! library that crashes ends this process.

/// Loading hundreds of megabytes from a slow disk and multiplying once takes less.
#[cfg(target_os = "linux")]
const MAX_SECONDS: u32 = 20;

/// Tells what is done next, so that a crash can be named.
pub(super) type Step<'a> = &'a mut dyn FnMut(&str);

/// What is done in the child: it finds something out, in one line.
pub(super) type Work<'a> = &'a mut dyn FnMut(Step) -> Result<String, String>;

/// Does `work` where it can do no harm, and hands on what it found out.
///
/// # Errors
/// What `work` says, or how it ended its process.
#[cfg(target_os = "linux")]
pub(super) fn in_child(work: Work) -> Result<String, String> {
    let mut ends = [0i32; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err("could not be tried: no pipe".to_owned());
    }
    let [read_end, write_end] = ends;
    // SAFETY: the child uses its own copies of everything and ends without returning from here.
    let child = unsafe { libc::fork() };
    if child == 0 {
        be_child(write_end, work);
    }
    // SAFETY: the child has its own.
    unsafe { libc::close(write_end) };
    if child < 0 {
        // SAFETY: ours, closed once.
        unsafe { libc::close(read_end) };
        return Err("could not be tried: no process".to_owned());
    }
    let said = read_to_end(read_end);
    let mut status = 0;
    // SAFETY: our own child, waited for once; a signal handler's interruption is tried again.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } == -1
        && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
    {}
    verdict(&said, status)
}

/// Nothing is tried here, and nothing found out.
#[cfg(not(target_os = "linux"))]
pub(super) fn in_child(_work: Work) -> Result<String, String> {
    Ok(String::new())
}

/// Lines: steps, then `ok: ...` or `error: ...`.
#[cfg(target_os = "linux")]
fn verdict(said: &str, status: i32) -> Result<String, String> {
    let last = said.lines().last().unwrap_or_default();
    if let Some(reason) = last.strip_prefix("error: ") {
        return Err(reason.to_owned());
    }
    let found = last.strip_prefix("ok: ");
    if let (Some(found), true) = (found, libc::WIFEXITED(status)) {
        return Ok(found.to_owned());
    }
    let step = match last {
        step if step.is_empty() || found.is_some() => "",
        step => &format!(" while {step}"),
    };
    if !libc::WIFSIGNALED(status) {
        return Err(format!("ends its process{step}"));
    }
    match libc::WTERMSIG(status) {
        libc::SIGALRM => Err(format!("does not end within {MAX_SECONDS} s{step}")),
        signal => Err(format!("crashes{step} (signal {signal})")),
    }
}

#[cfg(target_os = "linux")]
fn read_to_end(descriptor: i32) -> String {
    use std::io::Read;
    use std::os::fd::FromRawFd;
    // SAFETY: ours alone; the file closes it.
    let mut pipe = unsafe { std::fs::File::from_raw_fd(descriptor) };
    let mut said = Vec::new();
    // What was read before an error is what the child said.
    let _ = pipe.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

/// The child's life: silent, limited in time, without a core file.
#[cfg(target_os = "linux")]
fn be_child(write_end: i32, work: Work) -> ! {
    let say = |text: &str| {
        let line = format!("{text}\n");
        // SAFETY: the text is as long as it says; a parent that is gone needs no answer.
        unsafe { libc::write(write_end, line.as_ptr().cast(), line.len()) };
    };
    // SAFETY: a constant path and our own descriptors; libraries print to 1 and 2 when they fail.
    unsafe {
        let nowhere = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        libc::dup2(nowhere, 1);
        libc::dup2(nowhere, 2);
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        for signal in [libc::SIGALRM, libc::SIGSEGV, libc::SIGBUS] {
            libc::signal(signal, libc::SIG_DFL); // as a process without handlers ends
        }
        libc::alarm(MAX_SECONDS);
    }
    let done =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&mut |step| say(step))));
    match done {
        Ok(Ok(found)) => say(&format!("ok: {found}")),
        Ok(Err(reason)) => say(&format!("error: {}", reason.replace('\n', " "))),
        Err(_) => say("error: could not be tried"),
    }
    // SAFETY: ends without the parent's exit handlers, which are not the child's to run.
    unsafe { libc::_exit(0) }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_child_s_end_is_told() {
        let check = |work: Work, expected: Result<&str, &str>| {
            let found = in_child(work);
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        };
        check(&mut |_| Ok(String::new()), Ok(""));
        check(&mut |_| Ok("bf16 int8".to_owned()), Ok("bf16 int8"));
        check(&mut |_| Err("has no name\nat all".to_owned()), Err("has no name at all"));
        // SAFETY: in the child, which may die.
        check(&mut |_| unsafe { libc::abort() }, Err("crashes (signal 6)"));
        check(
            &mut |step| {
                step("it is loaded");
                step("it multiplies int8");
                // SAFETY: as above.
                unsafe { libc::raise(libc::SIGSEGV) };
                Ok(String::new())
            },
            Err("crashes while it multiplies int8 (signal 11)"),
        );
        check(
            &mut |step| {
                step("it is loaded");
                // SAFETY: as above.
                unsafe { libc::_exit(2) }
            },
            Err("ends its process while it is loaded"),
        );
        check(
            &mut |_| {
                // SAFETY: as above; the alarm that would come after some seconds, at once.
                unsafe { libc::raise(libc::SIGALRM) };
                Ok(String::new())
            },
            Err("does not end within 20 s"),
        );
        check(&mut |_| panic!("odd"), Err("could not be tried"));
    }
}

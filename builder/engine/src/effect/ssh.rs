//! A socket for a step that leads to the client's ssh agent.

use std::{
    fs, io,
    os::fd::AsRawFd,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    thread,
};

/// Listens at `at` and passes each connection on to `agent`, until the file at `at` is removed with its folder.
///
/// The socket has the mode and owner that the step was promised; the agent's own are not touched.
pub(crate) fn forward(agent: PathBuf, at: &Path, mode: u32, uid: u32, gid: u32) -> io::Result<()> {
    let listener = at_short_path(at, |at| UnixListener::bind(at))?;
    fs::set_permissions(at, fs::Permissions::from_mode(mode))?;
    chown(at, Some(uid), Some(gid))?;
    let at = at.to_owned();
    thread::Builder::new().name("ssh".to_owned()).spawn(move || {
        for step in listener.incoming() {
            // `close` wakes us by a last connection, after it took the file away.
            if !at.exists() {
                return;
            }
            let (Ok(step), Ok(agent)) = (step, UnixStream::connect(&agent)) else { continue };
            join(step, agent);
        }
    })?;
    Ok(())
}

/// Ends a forwarding: nothing can connect any more.
pub(crate) fn close(at: &Path) {
    let waker = at_short_path(at, |at| UnixStream::connect(at));
    // Whoever waits in `accept` got a connection before the file went; it looks for the file after that.
    let _gone = fs::remove_file(at);
    drop(waker);
}

/// Calls with a path that fits into a socket's address, which takes 107 bytes: through the open folder, where `/proc` is mounted.
fn at_short_path<T>(at: &Path, call: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(folder), Some(name)) = (at.parent(), at.file_name()) else { return call(at) };
    if at.as_os_str().len() < 100 {
        return call(at);
    }
    let folder = fs::File::open(folder)?;
    call(&Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
}

/// Copies both ways until both sides have closed.
fn join(step: UnixStream, agent: UnixStream) {
    let copy = |from: io::Result<UnixStream>, to: io::Result<UnixStream>| {
        let (Ok(mut from), Ok(mut to)) = (from, to) else { return };
        // A side that breaks off is a side that has ended.
        let _ended = thread::Builder::new().name("ssh".to_owned()).spawn(move || {
            let _copied = io::copy(&mut from, &mut to);
            let _closed = to.shutdown(std::net::Shutdown::Write);
        });
    };
    copy(step.try_clone(), agent.try_clone());
    copy(Ok(agent), Ok(step));
}

//! Mounting proper: from a directory to an open `/dev/fuse` that the kernel has tied to it.
//!
//! The library could do this too, but it also unmounts by path when a session ends, whoever has mounted there
//! since; and a direct mount of its loses the filesystem type.

use super::mountpoint::{HELPER, KIND};
use super::{Audience, MountError, MountOptions};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use std::ffi::CString;
use std::fmt::Write as _;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const DEVICE: &str = "/dev/fuse";
/// How the helper learns over which descriptor to send the device.
const HELPER_SOCKET: &str = "_FUSE_COMMFD";
const HELPER_WAIT: Duration = Duration::from_secs(10);

/// Mounts at `path` and returns the device: directly where we may, else through the helper.
pub(super) fn mount(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    match mount_directly(path, options)? {
        Some(device) => Ok(device),
        None => mount_with_helper(path, options),
    }
}

/// mount(2); `None` if that is not for us to do.
fn mount_directly(path: &Path, options: &MountOptions) -> Result<Option<OwnedFd>, MountError> {
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| MountError::Device(error.into()))?;
    let user = rustix::process::getuid().as_raw();
    let group = rustix::process::getgid().as_raw();
    let mut data = format!(
        "fd={},rootmode=40000,user_id={user},group_id={group},default_permissions",
        device.as_raw_fd()
    );
    if options.audience != Audience::Owner {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).expect("numbers and words hold no NUL");
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOEXEC, options.no_exec);
    match rustix::mount::mount(options.name.as_str(), path, KIND, flags, data.as_c_str()) {
        Ok(()) => Ok(Some(device)),
        Err(Errno::PERM) => Ok(None),
        Err(error) => Err(MountError::system("mount", path, error)),
    }
}

/// Lets the setuid helper mount and takes the device from the socket that is its standard input.
fn mount_with_helper(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let socket_error = |error| MountError::system("talk to fusermount3", path, error);
    let (ours, theirs) = UnixStream::pair().map_err(socket_error)?;
    ours.set_read_timeout(Some(HELPER_WAIT)).map_err(socket_error)?;
    let mut command = Command::new(HELPER);
    command.arg("-o").arg(helper_options(options)).arg("--").arg(path).env(HELPER_SOCKET, "0");
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut helper = command.spawn().map_err(MountError::Helper)?;
    // The builder still holds their end; without it a helper that fails is seen as the end of the stream.
    drop(command);
    let device = receive_descriptor(&ours);
    drop(ours);
    let mut said = String::new();
    if let Some(errors) = helper.stderr.take() {
        let _ = errors.take(HELPER_MESSAGE_BYTES_MAX).read_to_string(&mut said);
    }
    let status = helper.wait().map_err(socket_error)?;
    match device {
        Some(device) if status.success() => Ok(device),
        _ if said.trim().is_empty() => Err(MountError::HelperRefused(format!("it ended with {status}"))),
        _ => Err(MountError::HelperRefused(said.trim().to_owned())),
    }
}

const HELPER_MESSAGE_BYTES_MAX: u64 = 4096;

fn helper_options(options: &MountOptions) -> String {
    let mut words = String::from("nosuid,nodev,noatime,default_permissions,subtype=kilofs");
    for (wanted, word) in [
        (options.read_only, ",ro"),
        (options.no_exec, ",noexec"),
        (options.audience != Audience::Owner, ",allow_other"),
    ] {
        if wanted {
            words.push_str(word);
        }
    }
    let name = options.name.replace('\\', "\\\\").replace(',', "\\,");
    write!(words, ",fsname={name}").expect("strings take everything");
    words
}

fn receive_descriptor(socket: &UnixStream) -> Option<OwnedFd> {
    let mut byte = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_cannot_smuggle_options() {
        let mut options = MountOptions::new("a,suid\\,dev");
        options.parse("ro,allow_root").unwrap();
        let words = helper_options(&options);
        assert!(words.ends_with("subtype=kilofs,ro,allow_other,fsname=a\\,suid\\\\\\,dev"), "{words}");
    }
}

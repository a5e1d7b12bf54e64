//! One message and the descriptors beside it, over a Unix socket that keeps messages apart (SOCK_SEQPACKET).

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recv, recvmsg, sendmsg},
};
use prost::Message;

use super::protocol::{DESCRIPTORS_MAX, MESSAGE_BYTES_MAX};

/// Sends `message`. Waits while the other end does not read, for as long as the socket's SO_SNDTIMEO says.
///
/// # Errors
/// What the kernel says; EMSGSIZE for a message that is too long.
pub(super) fn send(socket: BorrowedFd<'_>, message: &impl Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = message.encode_to_vec();
    if bytes.len() > MESSAGE_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
        return Err(Errno::EMSGSIZE.into());
    }
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let beside = if numbers.is_empty() { &[] } else { &rights[..] };
    loop {
        // A client that is gone is an error here, no signal.
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], beside, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            sent => return sent.map(drop).map_err(io::Error::from),
        }
    }
}

/// Waits for a message; `None` at the end of the conversation.
///
/// # Errors
/// What the kernel says; InvalidData for what is no message of ours, or came without some of its descriptors.
pub(super) fn receive<M: Message + Default>(socket: BorrowedFd<'_>) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; next_length(socket)?.min(MESSAGE_BYTES_MAX)];
    let mut beside = cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let (length, descriptors, flags) = loop {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut beside), flags) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(received) => {
                let descriptors = owned(received.cmsgs()?);
                break (received.bytes, descriptors, received.flags);
            }
        }
    };
    if length == 0 {
        return Ok(None);
    }
    if flags.intersects(MsgFlags::MSG_TRUNC) {
        return Err(invalid("the message is too long"));
    }
    if flags.intersects(MsgFlags::MSG_CTRUNC) {
        return Err(invalid("some descriptors did not arrive: this process may have no more open (RLIMIT_NOFILE)"));
    }
    let message = M::decode(&bytes[..length]).map_err(|error| invalid(&error.to_string()))?;
    Ok(Some((message, descriptors)))
}

/// How long the next message is, without taking it: most are far from the longest.
fn next_length(socket: BorrowedFd<'_>) -> io::Result<usize> {
    loop {
        match recv(socket.as_raw_fd(), &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC) {
            Err(Errno::EINTR) => {}
            length => return length.map_err(io::Error::from),
        }
    }
}

/// Takes the descriptors over, so that each is closed whatever becomes of the message.
fn owned(messages: impl Iterator<Item = ControlMessageOwned>) -> Vec<OwnedFd> {
    let rights = |message| match message {
        ControlMessageOwned::ScmRights(numbers) => numbers,
        _ => Vec::new(),
    };
    messages
        .flat_map(rights)
        // SAFETY: the kernel has just opened them for this process, and told nobody else of them.
        .map(|number| unsafe { OwnedFd::from_raw_fd(number) })
        .collect()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _, os::fd::AsFd as _};

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;
    use crate::keeper::protocol::{Ask, Drop, Request};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    fn request(key: &str) -> Request {
        Request { ask: Some(Ask::Drop(Drop { key: key.to_owned() })) }
    }

    #[test]
    fn messages_keep_their_borders_and_bring_their_descriptors() {
        let (one, other) = pair();
        let (read_end, write_end) = nix::unistd::pipe().unwrap();
        send(one.as_fd(), &request("first"), &[write_end.as_fd()]).unwrap();
        send(one.as_fd(), &request("second"), &[]).unwrap();
        drop(write_end);
        let (message, mut descriptors) = receive::<Request>(other.as_fd()).unwrap().unwrap();
        assert_eq!((message, descriptors.len()), (request("first"), 1));
        File::from(descriptors.pop().unwrap()).write_all(b"through").unwrap();
        assert_eq!(io::read_to_string(File::from(read_end)).unwrap(), "through");
        let (message, descriptors) = receive::<Request>(other.as_fd()).unwrap().unwrap();
        assert_eq!((message, descriptors.len()), (request("second"), 0));
        drop(one);
        assert!(receive::<Request>(other.as_fd()).unwrap().is_none(), "the end is no message");
    }

    #[test]
    fn what_is_too_long_or_nonsense_is_refused() {
        let (one, other) = pair();
        let error = send(one.as_fd(), &request(&"x".repeat(MESSAGE_BYTES_MAX)), &[]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        nix::unistd::write(&one, &[0xff; 20]).unwrap();
        assert_eq!(receive::<Request>(other.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

//! The kubelet's connection to the registration socket, with an `:authority` that an HTTP/2 server takes. Must not know gRPC.
//!
//! The kubelet dials a plugin by the path of its socket, and grpc-go makes `%2Fvar%2Flib%2F...` of it in every request
//! (kubernetes/kubernetes#109081; pkg/kubelet/pluginmanager/operationexecutor). That is no authority, and the HTTP/2 library below
//! resets such streams with PROTOCOL_ERROR (hyperium/h2#487), so that no driver would ever be registered. Here it becomes
//! `localhost`, which the kubelet itself sends to the CSI socket.
//!
//! Frames (RFC 9113) and fields (RFC 7541) are only walked over. The encoder's dynamic table then holds a longer value than the
//! decoder's, which is told apart by evictions alone: a registration is two requests, and a table has 4096 bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};
use tonic::transport::server::{Connected, UdsConnectInfo};

/// "PRI * HTTP/2.0", which every connection begins with.
const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
const FRAME_HEADERS: u8 = 1;
const FLAG_END_HEADERS: u8 = 0x4;
const FLAG_PADDED: u8 = 0x8;
const FLAG_PRIORITY: u8 = 0x20;
/// What stands before the fields when [`FLAG_PRIORITY`] is set.
const PRIORITY_BYTES: usize = 5;
/// `:authority` in the static table (RFC 7541, appendix A).
const AUTHORITY_INDEX: usize = 1;
const AUTHORITY: &[u8] = b"localhost";
/// Read from the socket at a time. Requests of a registration have some hundred bytes.
const READ_BYTES: usize = 4096;

/// A connection whose requests are for `localhost`, whatever they say.
#[derive(Debug)]
pub(crate) struct LocalAuthority {
    stream: UnixStream,
    /// Bytes that have come in and are not a whole frame yet.
    partial: BytesMut,
    /// Bytes to hand on.
    done: Bytes,
    /// Whether the preface is behind us.
    begun: bool,
}

impl LocalAuthority {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, partial: BytesMut::new(), done: Bytes::new(), begun: false }
    }

    /// Takes whole frames out of what has come in.
    fn advance(&mut self) {
        let mut done = BytesMut::new();
        if !self.begun && self.partial.len() >= PREFACE_BYTES {
            done.extend_from_slice(&self.partial.split_to(PREFACE_BYTES));
            self.begun = true;
        }
        while self.begun
            && let Some(length) = frame_length(&self.partial)
            && self.partial.len() >= length
        {
            let frame = self.partial.split_to(length);
            match localized(&frame) {
                Some(frame) => done.extend_from_slice(&frame),
                None => done.extend_from_slice(&frame),
            }
        }
        self.done = done.freeze();
    }
}

/// Bytes of the frame that begins here, with its header.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let header = bytes.get(..FRAME_HEADER_BYTES)?;
    Some(FRAME_HEADER_BYTES + usize::from(header[0]) * 65_536 + usize::from(header[1]) * 256 + usize::from(header[2]))
}

/// The frame with another authority. `None`: it stays as it is (no header frame, or one that cannot be walked over).
fn localized(frame: &[u8]) -> Option<Vec<u8>> {
    let (header, payload) = frame.split_at_checked(FRAME_HEADER_BYTES)?;
    let flags = header[4];
    if header[3] != FRAME_HEADERS || flags & FLAG_END_HEADERS == 0 || flags & FLAG_PADDED != 0 {
        return None;
    }
    let prefix = if flags & FLAG_PRIORITY == 0 { 0 } else { PRIORITY_BYTES };
    let (prefix, fields) = payload.split_at_checked(prefix)?;
    let fields = localized_fields(fields)?;
    let length = u32::try_from(prefix.len() + fields.len()).ok()?.to_be_bytes();
    let header = [&length[1..], &header[3..]].concat();
    Some([&header, prefix, &fields].concat())
}

/// The fields with another authority.
fn localized_fields(fields: &[u8]) -> Option<Vec<u8>> {
    let mut made = Vec::with_capacity(fields.len());
    let mut rest = fields;
    while let Some(first) = rest.first().copied() {
        let field = rest;
        // Which kind of field it is, by its highest bits: an index, a size of the table, or a name with its value.
        let (bits, has_value) = match first {
            0x80.. => (7, false),
            0x40..0x80 => (6, true),
            0x20..0x40 => (5, false),
            _ => (4, true),
        };
        let (index, after) = integer(rest, bits)?;
        rest = after;
        if !has_value {
            made.extend_from_slice(&field[..field.len() - rest.len()]);
            continue;
        }
        if index == 0 {
            rest = skip_string(rest)?;
        }
        let name = &field[..field.len() - rest.len()];
        let value = rest;
        rest = skip_string(rest)?;
        made.extend_from_slice(name);
        if index == AUTHORITY_INDEX {
            made.push(AUTHORITY.len() as u8);
            made.extend_from_slice(AUTHORITY);
        } else {
            made.extend_from_slice(&value[..value.len() - rest.len()]);
        }
    }
    Some(made)
}

/// An integer whose first byte has `bits` bits of it (RFC 7541, 5.1), and what is behind.
fn integer(bytes: &[u8], bits: u32) -> Option<(usize, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value < most {
        return Some((value, rest));
    }
    // Four bytes hold more than any frame has.
    for shift in [0, 7, 14, 21] {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

/// What is behind a string, packed or not (RFC 7541, 5.2).
fn skip_string(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = integer(bytes, 7)?;
    rest.get(length..)
}

impl AsyncRead for LocalAuthority {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.done.is_empty() {
                let count = self.done.len().min(buffer.remaining());
                buffer.put_slice(&self.done[..count]);
                self.done.advance(count);
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.partial.extend_from_slice(read.filled());
            self.advance();
        }
    }
}

impl AsyncWrite for LocalAuthority {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for LocalAuthority {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tonic::transport::Server;

    use super::*;
    use crate::csi::{
        proto::registration::registration_server::RegistrationServer, registration::Registration, server::Socket,
    };

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
        frame.extend_from_slice(payload);
        frame
    }

    fn string(text: &str) -> Vec<u8> {
        [&[text.len() as u8], text.as_bytes()].concat()
    }

    /// The first request of a kubelet, as grpc-go writes it: the authority is the escaped path, with incremental indexing.
    fn request(authority: &str) -> Vec<u8> {
        // POST, http, then :path, :authority, content-type and te by index or by name.
        let fields = [
            vec![0x83, 0x86, 0x44],
            string("/pluginregistration.Registration/GetInfo"),
            vec![0x41],
            string(authority),
            vec![0x5f],
            string("application/grpc"),
            vec![0x40],
            string("te"),
            string("trailers"),
        ];
        let nothing = [0; 5];
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, 0, &[]),
            frame(FRAME_HEADERS, FLAG_END_HEADERS, 1, &fields.concat()),
            frame(0, 1, 1, &nothing),
        ]
        .concat()
    }

    /// What the server answers, until the name of the driver is in it or it has ended the stream.
    async fn answer(stream: &mut UnixStream) -> Vec<u8> {
        let mut seen = Vec::new();
        let reads = async {
            while !seen.windows(11).any(|part| part == b"driver.test") && stream.read_buf(&mut seen).await.unwrap() > 0
            {
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), reads).await;
        seen
    }

    #[tokio::test]
    async fn a_kubelet_that_calls_the_socket_by_its_path_is_answered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("reg.sock");
        let socket = Socket::bind(&path).await.unwrap();
        let service = RegistrationServer::new(Registration::new("driver.test", "/csi/csi.sock"));
        let router = Server::builder().add_service(service);
        let served = tokio::spawn(socket.serve_registration(router, std::future::pending()));
        for authority in ["localhost", "%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fdriver.test-reg.sock"] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            // Byte by byte, as a socket may hand it over.
            for byte in request(authority) {
                stream.write_all(&[byte]).await.unwrap();
            }
            let seen = answer(&mut stream).await;
            assert!(seen.windows(11).any(|part| part == b"driver.test"), "{authority}: {seen:?}");
        }
        served.abort();
    }

    #[test]
    fn only_the_authority_of_a_header_frame_changes() {
        let other = [vec![0x82, 0x3f, 0xe1, 0x1f, 0x10], string("a"), string("b")].concat();
        assert_eq!(localized_fields(&other).unwrap(), other);
        let named = [vec![0x01], string("x%2Fy")].concat();
        assert_eq!(localized_fields(&named).unwrap(), [vec![0x01], string("localhost")].concat());
        // A string of 200 bytes has a length of two bytes; a field that ends early is left to the server.
        let long = [vec![0x41, 0x7f, 73], vec![b'x'; 200], vec![0x88]].concat();
        assert_eq!(localized_fields(&long).unwrap(), [vec![0x41], string("localhost"), vec![0x88]].concat());
        assert_eq!(localized_fields(&long[..50]), None);
        assert_eq!(localized(&frame(0, 0, 1, b"\x01\x01x")), None);
        let prioritized = frame(FRAME_HEADERS, FLAG_END_HEADERS | FLAG_PRIORITY, 1, b"\0\0\0\0\x10\x41\x01x");
        let expected = frame(FRAME_HEADERS, FLAG_END_HEADERS | FLAG_PRIORITY, 1, b"\0\0\0\0\x10\x41\x09localhost");
        assert_eq!(localized(&prioritized).unwrap(), expected);
    }
}

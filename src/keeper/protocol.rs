//! What client and keeper say to each other: one message a packet, each question answered before the next.
//!
//! Protocol buffers, because fields that a later version adds are skipped by an earlier one: keeper and plugin are never
//! replaced together. What changes the meaning of a message would be a new [`VERSION`], which Hello agrees on.

/// The newest version spoken here, and the only one so far.
pub(super) const VERSION: u32 = 1;
/// Bytes of one message. Notes are the size of a path and a few numbers; what is large is in a memory file.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Descriptors of one item: the kernel takes 253 in one message (SCM_MAX_FD of include/net/scm.h).
pub(super) const DESCRIPTORS_MAX: usize = 253;

/// What a client says.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Request {
    #[prost(oneof = "Ask", tags = "1, 2, 3, 4, 5")]
    pub ask: Option<Ask>,
}

/// See [`Request`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Ask {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Keep(Keep),
    #[prost(message, tag = "3")]
    Fetch(Fetch),
    #[prost(message, tag = "4")]
    Drop(Drop),
    #[prost(message, tag = "5")]
    Tell(Tell),
}

/// Opens the conversation. A group belongs to one connection at a time.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Hello {
    /// The newest version that the client speaks.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Whose things these are, e.g. one node plugin's or one mount's.
    #[prost(string, tag = "2")]
    pub group: String,
}

/// Holds the descriptors that come along, in place of what had the key before.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Keep {
    #[prost(string, tag = "1")]
    pub key: String,
    /// What the client wants to read again beside them. Nothing secret.
    #[prost(bytes = "vec", tag = "2")]
    pub note: Vec<u8>,
}

/// Asks for all items of the group.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Fetch {}

/// Lets an item go.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Drop {
    #[prost(string, tag = "1")]
    pub key: String,
}

/// Writes a notification to the FUSE device that comes along: asked by who has no group, one at a time.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Tell {
    /// `fuse_out_header` and what follows it.
    #[prost(bytes = "vec", tag = "1")]
    pub message: Vec<u8>,
}

/// What the keeper says.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Reply {
    #[prost(oneof = "Answer", tags = "1, 2, 3, 4, 5, 6")]
    pub answer: Option<Answer>,
}

/// See [`Reply`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Answer {
    #[prost(message, tag = "1")]
    Welcome(Welcome),
    #[prost(message, tag = "2")]
    Busy(Busy),
    #[prost(message, tag = "3")]
    Item(Keep),
    #[prost(message, tag = "4")]
    Done(Done),
    #[prost(message, tag = "5")]
    Refused(Refused),
    #[prost(message, tag = "6")]
    Told(Told),
}

/// The group is the client's.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Welcome {
    /// The version that both speak from here on.
    #[prost(uint32, tag = "1")]
    pub version: u32,
}

/// The group is somebody else's while that process lives.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Busy {
    #[prost(int32, tag = "1")]
    pub pid: i32,
}

/// It is done; of Fetch, these were all.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Done {
    #[prost(uint32, tag = "1")]
    pub items: u32,
}

/// What the kernel said to a notification.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Told {
    /// 0: it took it.
    #[prost(int32, tag = "1")]
    pub errno: i32,
}

/// It is not done.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Refused {
    /// Why, in a sentence.
    #[prost(string, tag = "1")]
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn fields_of_a_later_version_are_skipped() {
        let mut later = Request { ask: Some(Ask::Drop(Drop { key: "a".to_owned() })) }.encode_to_vec();
        // Field 77, a number.
        later.extend([0xe8, 0x04, 0x01]);
        let Ok(Request { ask: Some(Ask::Drop(dropped)) }) = Request::decode(later.as_slice()) else {
            panic!("a drop is a drop")
        };
        assert_eq!(dropped.key, "a");
    }

    #[test]
    fn a_question_that_only_a_later_version_knows_is_no_question() {
        // Field 9, an empty message.
        assert_eq!(Request::decode([0x4a, 0x00].as_slice()), Ok(Request { ask: None }));
    }
}

//! The format of bytes on disk and in log entries. This is the only file that names bincode.
//!
//! ```text
//!   0      4      5      6      8         12        16
//!   | QRT1 | fmt  | lvl  | kind | length  | crc32c  | payload (bincode, fixed-size integers) ...
//!            u8     u8     u16    u32 LE    u32 LE    of everything before it and the payload
//! ```
//!
//! The envelope is written by hand, so that the payload format can be replaced one day. A kind or feature level that
//! this build does not know is an error of its own and stops the replica, because an entry that others apply must not
//! be skipped. Types evolve by appending enum variants and raising [`FEATURE_LEVEL`]. `tests/wire.rs` holds golden
//! bytes for every variant, in both directions.

use bincode::enc::write::SizeWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;

const MAGIC: [u8; 4] = *b"QRT1";
const FORMAT: u8 = 1;
const HEADER: usize = 16;

/// The feature level of this build. Raised when a variant is appended; an envelope with a higher level is refused.
pub const FEATURE_LEVEL: u8 = 1;

/// The largest payload, in bytes. A snapshot in which every bound is reached stays below it.
pub const LIMIT: usize = 64 << 20;

/// What an envelope contains. The numbers are stored on disks and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A [`Command`](crate::Command) in a log entry.
    Command = 1,
    /// A [`ClusterState`](crate::ClusterState) in a snapshot.
    ClusterState = 2,
    /// A log entry with its position, in the durable log.
    Entry = 3,
    /// A Raft vote, in the durable log.
    Vote = 4,
    /// A position in the log.
    Position = 5,
    /// The last entry and the configuration that a snapshot covers.
    SnapshotMeta = 6,
    /// The node and cluster that a data folder belongs to.
    Folder = 7,
}

impl Kind {
    const fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Command,
            2 => Self::ClusterState,
            3 => Self::Entry,
            4 => Self::Vote,
            5 => Self::Position,
            6 => Self::SnapshotMeta,
            7 => Self::Folder,
            _ => return None,
        })
    }
}

/// A type with a kind of its own, so that no record is read as another type.
pub trait Enveloped: Serialize + DeserializeOwned {
    /// The kind in its envelope.
    const KIND: Kind;
}

/// Bytes that are not a valid record of the expected kind. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The record is shorter or longer than its header announces, or shorter than a header.
    #[error("the record has {got} bytes where {want} were announced: it was truncated, or other data follows it")]
    Length {
        /// The number of bytes found.
        got: usize,
        /// The number of bytes announced.
        want: usize,
    },
    /// The bytes do not begin with `QRT1`.
    #[error("the record does not begin with the magic bytes of quorate")]
    Magic,
    /// The bytes have changed since they were written.
    #[error("the record is damaged: its header has checksum {stored:08x}, its bytes have {computed:08x}")]
    Checksum {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// Written by a newer version, in a format or at a feature level that this build does not know.
    #[error(
        "the record has format {format}, feature level {level}; this build knows up to {FORMAT} and {FEATURE_LEVEL}; upgrade this node"
    )]
    Newer {
        /// The format in the envelope.
        format: u8,
        /// The feature level in the envelope.
        level: u8,
    },
    /// A kind that this build does not know. Such a record must not be skipped.
    #[error("the record is of kind {0}, which this build does not know; upgrade this node")]
    UnknownKind(u16),
    /// A record of another kind than was expected.
    #[error("the record is of kind {got:?}, but {want:?} was expected")]
    WrongKind {
        /// The kind in the envelope.
        got: Kind,
        /// The kind that was expected.
        want: Kind,
    },
    /// The envelope is valid, but the payload cannot be encoded or decoded.
    #[error("the payload of the record is invalid: {0}")]
    Payload(String),
    /// More than [`LIMIT`] bytes.
    #[error("the record has {0} bytes, more than the limit of {LIMIT}")]
    TooLarge(usize),
}

const fn config()
-> bincode::config::Configuration<bincode::config::LittleEndian, bincode::config::Fixint, bincode::config::Limit<LIMIT>>
{
    bincode::config::legacy().with_limit::<LIMIT>()
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), payload)
}

/// Writes `record` in its envelope.
///
/// # Errors
/// [`CodecError::TooLarge`] above [`LIMIT`]; [`CodecError::Payload`] if the type cannot be written.
pub fn encode<T: Enveloped>(record: &T) -> Result<Vec<u8>, CodecError> {
    let unwritable = |e: bincode::error::EncodeError| CodecError::Payload(e.to_string());
    // Counted first: a vector that grows while it is written is copied several times.
    let mut size = SizeWriter::default();
    bincode::serde::encode_into_writer(record, &mut size, config()).map_err(unwritable)?;
    let mut bytes = Vec::with_capacity(HEADER + size.bytes_written);
    bytes.resize(HEADER, 0);
    bincode::serde::encode_into_std_write(record, &mut bytes, config()).map_err(unwritable)?;
    let length = bytes.len() - HEADER;
    let announced = u32::try_from(length).ok().filter(|_| length <= LIMIT).ok_or(CodecError::TooLarge(length))?;
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4] = FORMAT;
    bytes[5] = FEATURE_LEVEL;
    bytes[6..8].copy_from_slice(&(T::KIND as u16).to_le_bytes());
    bytes[8..12].copy_from_slice(&announced.to_le_bytes());
    let crc = checksum(&bytes[..12], &bytes[HEADER..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// Checks an envelope without decoding the payload: that it is complete and undamaged. The kind may be one that this
/// build does not know: a node forwards such a record, but does not apply it.
///
/// # Errors
/// Any [`CodecError`] but [`CodecError::UnknownKind`], [`CodecError::Newer`] and [`CodecError::Payload`].
pub fn inspect(bytes: &[u8]) -> Result<(), CodecError> {
    let Some((header, payload)) = bytes.split_at_checked(HEADER) else {
        return Err(CodecError::Length { got: bytes.len(), want: HEADER });
    };
    if header[..4] != MAGIC {
        return Err(CodecError::Magic);
    }
    let announced = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
    if announced > LIMIT {
        return Err(CodecError::TooLarge(announced));
    }
    if announced != payload.len() {
        return Err(CodecError::Length { got: payload.len(), want: announced });
    }
    let stored = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
    let computed = checksum(&header[..12], payload);
    if stored != computed {
        return Err(CodecError::Checksum { stored, computed });
    }
    Ok(())
}

/// Reads a record back. Every byte must be used.
///
/// # Errors
/// [`CodecError`], which tells how the bytes are wrong. No input makes this function panic, or allocate more than
/// [`LIMIT`] bytes at a time.
pub fn decode<T: Enveloped>(bytes: &[u8]) -> Result<T, CodecError> {
    inspect(bytes)?;
    let (format, level) = (bytes[4], bytes[5]);
    if format != FORMAT || level > FEATURE_LEVEL {
        return Err(CodecError::Newer { format, level });
    }
    let number = u16::from_le_bytes([bytes[6], bytes[7]]);
    let kind = Kind::from_number(number).ok_or(CodecError::UnknownKind(number))?;
    if kind != T::KIND {
        return Err(CodecError::WrongKind { got: kind, want: T::KIND });
    }
    let payload = &bytes[HEADER..];
    let (record, used) =
        bincode::serde::decode_from_slice(payload, config()).map_err(|e| CodecError::Payload(e.to_string()))?;
    if used != payload.len() {
        return Err(CodecError::Payload(format!("{used} of {} bytes used", payload.len())));
    }
    Ok(record)
}

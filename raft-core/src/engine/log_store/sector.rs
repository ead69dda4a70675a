//! A sector: what a disk writes whole or not at all. Every sector of the log says where it belongs, and proves it.
//!
//! ```text
//!   sector, 512 bytes
//!   ├ crc32c of the rest, u32 ┼ part, u32 ┼ place, u64 ┼ 496 bytes of its group ┤          all integers little-endian
//!
//!   group                  part 0                     part 1                 part 2
//!                          ├ length u64 ┼ crc u32 ┼ … ┼ …                    ┼ …   zeros to the end ┤
//!   place                  7                          8                      9
//! ```
//!
//! A *group* is what one sync makes durable. A *place* counts the sectors of the log from its first, for ever; the sector's
//! place in the file follows from it (`stream.rs`). The part counts the sectors of one group.
//!
//! A write that was torn by a power cut leaves each sector as it was or as it was to be: zero, or whole. So a sector whose
//! checksum is wrong was not torn but damaged. This is how a flipped bit in the last group is told from a group that never
//! became durable.

/// What a disk writes whole or not at all, in bytes.
pub(super) const SECTOR: usize = 512;

/// The checksum, the part, the place.
const HEADER: usize = 16;

/// What a sector holds of its group.
const CONTENT: usize = SECTOR - HEADER;

/// What stands before the payload of a group: its length and its checksum.
const PREFACE: usize = 12;

/// What a sector is, by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sector {
    /// Never written, or wiped.
    Zero,
    /// Part of a group.
    Whole {
        /// Where in the log it is.
        place: u64,
        /// Which sector of its group it is.
        part: u32,
    },
    /// Neither: damaged.
    Broken,
}

impl Sector {
    /// What these 512 bytes are.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let (Some(checksum), Some(part), Some(place)) = (u32_at(bytes, 0), u32_at(bytes, 4), u64_at(bytes, 8)) else {
            return Self::Broken;
        };
        if bytes.iter().all(|byte| *byte == 0) {
            Self::Zero
        } else if bytes.get(4..).is_some_and(|rest| crc32c::crc32c(rest) == checksum) {
            Self::Whole { place, part }
        } else {
            Self::Broken
        }
    }
}

/// How many sectors a group with a payload of this length takes.
pub(super) fn sectors_for(length: u64) -> u64 {
    length.saturating_add(PREFACE as u64).div_ceil(CONTENT as u64)
}

/// The length of the payload of the group whose first sector this is. Unchecked.
pub(super) fn length_of_group(first: &[u8]) -> u64 {
    u64_at(first, HEADER).unwrap_or(u64::MAX)
}

/// The sectors of a group at `place`.
pub(super) fn lay_out(place: u64, payload: &[u8]) -> Vec<u8> {
    let count = usize::try_from(sectors_for(payload.len() as u64)).unwrap_or(usize::MAX);
    let mut out = Vec::with_capacity(count.saturating_mul(SECTOR));
    let mut preface = Vec::with_capacity(PREFACE);
    preface.extend((payload.len() as u64).to_le_bytes());
    preface.extend(crc32c::crc32c(payload).to_le_bytes());
    let (first, rest) = payload.split_at(payload.len().min(CONTENT - PREFACE));
    preface.extend(first);
    let contents = std::iter::once(preface.as_slice()).chain(rest.chunks(CONTENT));
    for (part, content) in contents.enumerate() {
        let start = out.len();
        out.extend([0; 4]);
        out.extend(u32::try_from(part).unwrap_or(u32::MAX).to_le_bytes());
        out.extend((place + part as u64).to_le_bytes());
        out.extend(content);
        out.resize(start + SECTOR, 0);
        let checksum = crc32c::crc32c(&out[start + 4..]);
        out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
    }
    out
}

/// The payload of a group, from its sectors in order; `None` if its checksum is wrong.
pub(super) fn payload_of(sectors: &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(length_of_group(sectors)).ok()?;
    let checksum = u32_at(sectors, HEADER + 8)?;
    let contents = sectors.chunks_exact(SECTOR).flat_map(|sector| &sector[HEADER..]);
    let payload: Vec<u8> = contents.skip(PREFACE).take(length).copied().collect();
    (payload.len() == length && crc32c::crc32c(&payload) == checksum).then_some(payload)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_any_length_is_laid_out_and_read_back_and_each_sector_knows_its_place() {
        for length in (0..3 * CONTENT).step_by(61).chain([CONTENT - PREFACE, CONTENT - PREFACE + 1]) {
            let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let out = lay_out(40, &payload);
            assert_eq!(out.len() as u64, sectors_for(length as u64) * SECTOR as u64);
            assert_eq!(length_of_group(&out), length as u64);
            for (n, sector) in out.chunks(SECTOR).enumerate() {
                assert_eq!(Sector::of(sector), Sector::Whole { place: 40 + n as u64, part: n as u32 });
            }
            assert_eq!(payload_of(&out), Some(payload));
        }
    }

    #[test]
    fn any_flipped_bit_breaks_a_sector_or_an_empty_one() {
        let out = lay_out(3, b"abc");
        for content in [out.clone(), vec![0; SECTOR]] {
            for bit in 0..SECTOR * 8 {
                let mut flipped = content.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Sector::of(&flipped), Sector::Broken, "bit {bit}");
            }
        }
    }

    #[test]
    fn sectors_of_two_groups_make_no_group() {
        let [one, other] = [1, 2].map(|byte| lay_out(7, &vec![byte; 900]));
        let mixed = [&one[..SECTOR], &other[SECTOR..]].concat();
        assert!(mixed.chunks(SECTOR).all(|sector| matches!(Sector::of(sector), Sector::Whole { .. })));
        assert_eq!(payload_of(&mixed), None);
    }
}

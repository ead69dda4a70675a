//! Makes an empty log on a disk, and reads one: what is there, whether it can be trusted, and what a power cut left over.
//!
//! ```text
//!   survey     every sector of the file: zero, whole (place, part), broken
//!   beginning  the newest region whose first group is whole says which group is the oldest that is needed
//!   walk       from that group on, each follows the one before, in its region or at the beginning of the next
//!   tail       where the walk ends: the next group is not there │ torn: wiped │ damaged: refused
//!   state      the rules of the log: no hole, terms never fall, nothing purged that no snapshot covers
//! ```
//!
//! One group at most is not durable when the power is cut, and it would have been the next. Its sectors are as written or as
//! before (`sector.rs`). So, after the last whole group:
//!
//! * Where the next group would begin stands an older sector or none: that group never became durable.
//! * Its first sector is there, and another is missing: the same.
//! * A sector of it is broken: damage. It may have been durable. The log is refused.
//! * Sectors of another group stand behind: a group between them is lost. The log is refused.
//!
//! What is left of a torn group is wiped before anything new is written, so that the halves of two groups never stand
//! together. Nothing is wiped in a log that is refused.
//!
//! What is found may not be durable, if the process before was killed and not the machine. It is synced before anybody is
//! told of it.
//!
//! *Limit*: a file that was cut by a whole number of regions, at its end, is taken for a shorter log. No power cut does that.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::log_store::OpenError;
use crate::engine::log_store::disk::Disk;
use crate::engine::log_store::group::{Beginning, Carried, Read, beginning_of, put_beginning, replay};
use crate::engine::log_store::memory::{State, follows};
use crate::engine::log_store::sector::{SECTOR, Sector, lay_out, length_of_group, payload_of, sectors_for};
use crate::engine::log_store::stream::{Found, Stream};

/// An open log, and what is in it.
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    pub(crate) state: State,
}

/// Makes an empty log on an empty disk.
///
/// # Errors
/// What the disk says. What is on it then is no log.
pub(crate) fn format(disk: &dyn Disk) -> Result<(), OpenError> {
    let region = disk.region_sectors() * SECTOR as u64;
    disk.set_len(region)?;
    disk.write(0, &vec![0; usize::try_from(region).unwrap_or(0)])?;
    let mut payload = vec![];
    put_beginning(&mut payload, Beginning { oldest: 0, follows: 0 }, &Carried::default());
    disk.write(0, &lay_out(0, &payload))?;
    disk.sync()?;
    Ok(())
}

/// Reads the log on a disk, and wipes what a power cut left over of a group.
///
/// # Errors
/// [`OpenError::Damaged`]: nothing was written. [`OpenError::Io`] otherwise; to open it again does no harm.
pub(crate) fn open(disk: Box<dyn Disk>) -> Result<Opened, OpenError> {
    let survey = Survey::of(&*disk)?;
    let newest = survey.newest_beginning(&*disk)?;
    let mut walk = Walk { state: State::default(), carried: Carried::default(), groups: vec![], next: newest.oldest };
    walk.run(&survey, &*disk)?;
    if walk.next <= newest.place {
        let (at, next) = (walk.next, newest.place);
        return Err(OpenError::Damaged(format!("a group at {at} is missing, although one at {next} is there")));
    }
    survey.check_tail(&*disk, newest.oldest, walk.next)?;
    check(&walk.state)?;
    survey.wipe(&*disk, walk.next)?;
    if !quorate_membership::mutant!("found_is_not_synced") {
        disk.sync()?;
    }
    let oldest_region = newest.oldest / survey.region;
    let last_region = (walk.next - 1) / survey.region;
    let slots: BTreeMap<u64, u64> =
        survey.slots.range(oldest_region..=last_region).map(|(region, slot)| (*region, *slot)).collect();
    let used: BTreeSet<u64> = slots.values().copied().collect();
    let free = (0..survey.count()).filter(|slot| !used.contains(slot)).collect();
    let mut stream = Stream::new(disk, walk.next, slots, free);
    let purged = walk.state.purged.map(|purged| purged.index);
    stream.note(walk.groups, walk.carried, purged);
    Ok(Opened { stream, state: walk.state })
}

/// The rules that hold for what is found.
fn check(state: &State) -> Result<(), OpenError> {
    let covered = state.snapshot.as_ref().and_then(|(about, _)| about.last);
    let purged = state.purged;
    if purged.map(|purged| purged.index) > covered.map(|covered| covered.index) {
        let why = format!("entries were purged up to {purged:?}, the snapshot ends at {covered:?}");
        return Err(OpenError::Damaged(why));
    }
    match state.first_entry() {
        Some(first) => follows(purged, first).map_err(OpenError::Damaged),
        None => Ok(()),
    }
}

/// What is on the disk, sector by sector.
struct Survey {
    /// Sectors of a region.
    region: u64,
    sectors: Vec<Sector>,
    /// Which region of the stream stands where in the file.
    slots: BTreeMap<u64, u64>,
}

struct NewestBeginning {
    place: u64,
    oldest: u64,
}

/// What stands where a group might begin.
enum Group {
    /// No group of this place.
    Absent,
    /// Its first sector is there, and another is missing.
    Torn,
    /// A sector of it is damaged, or its checksum is wrong.
    Broken,
    Whole {
        payload: Vec<u8>,
        end: u64,
    },
}

impl Survey {
    fn of(disk: &dyn Disk) -> Result<Self, OpenError> {
        let region = disk.region_sectors();
        let bytes = region * SECTOR as u64;
        let length = disk.len()?;
        if length == 0 || length % bytes != 0 {
            return Err(OpenError::Damaged(format!(
                "{length} bytes are not a whole number of regions of {bytes} bytes: this is no log of quorate, or it was cut"
            )));
        }
        let (mut sectors, mut slots) = (vec![], BTreeMap::new());
        let mut content = vec![0; usize::try_from(bytes).unwrap_or(0)];
        for slot in 0..length / bytes {
            disk.read(slot * bytes, &mut content)?;
            for (n, sector) in (0..).zip(content.chunks_exact(SECTOR)) {
                let sector = match Sector::of(sector) {
                    // Written to the wrong place.
                    Sector::Whole { place, .. } if place % region != n => Sector::Broken,
                    other => other,
                };
                if let Sector::Whole { place, .. } = sector
                    && *slots.entry(place / region).or_insert(slot) != slot
                {
                    let region = place / region;
                    return Err(OpenError::Damaged(format!("region {region} is in the file twice")));
                }
                sectors.push(sector);
            }
        }
        Ok(Self { region, sectors, slots })
    }

    /// How many regions the file has.
    fn count(&self) -> u64 {
        self.sectors.len() as u64 / self.region
    }

    /// Where in the file a place is, in sectors.
    fn position(&self, place: u64) -> Option<usize> {
        let slot = self.slots.get(&(place / self.region))?;
        usize::try_from(slot * self.region + place % self.region).ok()
    }

    fn at(&self, place: u64) -> Option<Sector> {
        self.sectors.get(self.position(place)?).copied()
    }

    /// What stands where a group might begin.
    fn group(&self, disk: &dyn Disk, place: u64) -> Result<Group, OpenError> {
        match self.at(place) {
            Some(Sector::Broken) => return Ok(Group::Broken),
            Some(Sector::Whole { place: here, part: 0 }) if here == place => {}
            _ => return Ok(Group::Absent),
        }
        let mut first = vec![0; SECTOR];
        self.read(disk, place, &mut first)?;
        let count = sectors_for(length_of_group(&first));
        let mut torn = false;
        for n in 0..count.min(self.sectors.len() as u64 + 1) {
            match self.at(place + n) {
                Some(Sector::Whole { place: here, part }) if here == place + n && u64::from(part) == n => {}
                Some(Sector::Broken) => return Ok(Group::Broken),
                _ => torn = true,
            }
        }
        if torn {
            return Ok(Group::Torn);
        }
        let mut sectors = vec![0; usize::try_from(count).unwrap_or(0).saturating_mul(SECTOR)];
        let mut at = place;
        let mut rest = sectors.as_mut_slice();
        while !rest.is_empty() {
            let left = usize::try_from(self.region - at % self.region).unwrap_or(usize::MAX).saturating_mul(SECTOR);
            let (now, later) = rest.split_at_mut(left.min(rest.len()));
            self.read(disk, at, now)?;
            at += (now.len() / SECTOR) as u64;
            rest = later;
        }
        Ok(payload_of(&sectors).map_or(Group::Broken, |payload| Group::Whole { payload, end: place + count }))
    }

    fn read(&self, disk: &dyn Disk, place: u64, out: &mut [u8]) -> Result<(), OpenError> {
        let position = self.position(place).ok_or_else(|| OpenError::Damaged(format!("nothing is at {place}")))?;
        Ok(disk.read(position as u64 * SECTOR as u64, out)?)
    }

    /// The newest region that begins with a whole group.
    fn newest_beginning(&self, disk: &dyn Disk) -> Result<NewestBeginning, OpenError> {
        for region in self.slots.keys().rev() {
            let place = region * self.region;
            let Group::Whole { payload, .. } = self.group(disk, place)? else { continue };
            if let Some(Beginning { oldest, .. }) = beginning_of(&payload)? {
                return Ok(NewestBeginning { place, oldest });
            }
        }
        Err(OpenError::Damaged("no region begins with a whole group".into()))
    }

    /// Where a group would begin that follows on the one that ended at `next`: right there, or with the next region.
    fn candidates(&self, next: u64) -> impl Iterator<Item = u64> + use<> {
        let region = next.next_multiple_of(self.region);
        (next != region).then_some(next).into_iter().chain([region])
    }

    /// Refuses what no power cut leaves behind the last whole group.
    fn check_tail(&self, disk: &dyn Disk, oldest: u64, next: u64) -> Result<(), OpenError> {
        let lost = |place: u64| Err(OpenError::Damaged(format!("the group at {place} is damaged")));
        for place in self.candidates(next) {
            match self.group(disk, place)? {
                Group::Absent | Group::Torn => {}
                Group::Broken if quorate_membership::mutant!("damage_taken_for_torn") => {}
                Group::Broken => return lost(place),
                Group::Whole { .. } => {
                    return Err(OpenError::Damaged(format!("the group at {place} does not follow on {next}")));
                }
            }
        }
        let needed = oldest / self.region..next.div_ceil(self.region);
        let needed: BTreeSet<u64> = self.slots.range(needed).map(|(_, slot)| *slot).collect();
        for (n, sector) in (0..).zip(&self.sectors) {
            match sector {
                // Of the group that was on its way.
                Sector::Whole { place, part } if *place >= next => {
                    let start = place.checked_sub(u64::from(*part));
                    if !self.candidates(next).any(|candidate| Some(candidate) == start) {
                        return lost(next);
                    }
                }
                // The next region might have begun here, also in the place of an old one.
                Sector::Broken if n % self.region == 0 && !needed.contains(&(n / self.region)) => {
                    if !quorate_membership::mutant!("damage_taken_for_torn") {
                        return lost(next.next_multiple_of(self.region));
                    }
                }
                Sector::Whole { .. } | Sector::Broken | Sector::Zero => {}
            }
        }
        Ok(())
    }

    /// Wipes what is left over: sectors of a group that is not whole, and damaged ones where nothing is.
    fn wipe(&self, disk: &dyn Disk, next: u64) -> Result<(), OpenError> {
        for (n, sector) in (0..).zip(&self.sectors) {
            let left_over = match sector {
                Sector::Whole { place, .. } => *place >= next && !quorate_membership::mutant!("torn_group_stays"),
                Sector::Broken => true,
                Sector::Zero => false,
            };
            if left_over {
                disk.write(n * SECTOR as u64, &[0; SECTOR])?;
            }
        }
        Ok(())
    }
}

/// Group after group.
struct Walk {
    state: State,
    carried: Carried,
    groups: Vec<Found>,
    /// Where the last one ended.
    next: u64,
}

impl Walk {
    fn run(&mut self, survey: &Survey, disk: &dyn Disk) -> Result<(), OpenError> {
        let oldest = self.next;
        while let Some((place, payload, end)) = self.following(survey, disk, oldest)? {
            let Read { beginning, top, snapshot } = replay(&payload, &mut self.state, &mut self.carried)?;
            if (place % survey.region == 0) != beginning.is_some() {
                return Err(OpenError::Damaged(format!("the group at {place} begins no region, or should not")));
            }
            self.groups.push(Found { place, top, snapshot });
            self.next = end;
        }
        Ok(())
    }

    /// The group that follows, if it is whole.
    fn following(
        &self,
        survey: &Survey,
        disk: &dyn Disk,
        oldest: u64,
    ) -> Result<Option<(u64, Vec<u8>, u64)>, OpenError> {
        for place in survey.candidates(self.next) {
            if let Group::Whole { payload, end } = survey.group(disk, place)? {
                let follows = beginning_of(&payload)?.map(|beginning| beginning.follows);
                if place == oldest || follows.is_none_or(|follows| follows == self.next) {
                    return Ok(Some((place, payload, end)));
                }
            }
        }
        Ok(None)
    }
}

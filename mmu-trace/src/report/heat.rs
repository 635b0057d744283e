//! Which guest frames fault most, and when, in memory that does not grow with their number.
//!
//! A bounded number of frames is remembered. When more come the colder half is forgotten, and how much that
//! may have cost is counted.

use std::{cmp::Reverse, collections::HashMap};

use super::timeline::{Bins, N_BINS, count, halve};

/// Guest frames that are remembered: 128 MiB of guest memory. They take 16 MB at most.
const MAX_FRAMES: usize = 32_768;

/// A 4 KiB frame of a guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame {
    /// Whose memory it is.
    pub holder: Holder,
    /// Guest frame number.
    pub gfn: u64,
}

/// Who held a VM slot when an event came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// The VMM's process id.
    Process(u32),
    /// Only the slot is known: the event that says who took it is not in the capture.
    Slot(u32),
}

/// What happened to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heat {
    /// Faults on it that concerned a mapping (no MMIO).
    pub faults: u64,
    /// Those of them that were refaults.
    pub refaults: u64,
    /// The faults by time.
    pub bins: Bins,
}

/// The heat of guest frames.
#[derive(Clone, Debug, Default)]
pub(super) struct HeatMap {
    frames: HashMap<Frame, Faults>,
    /// Faults by time, of the frames that need it.
    bins: Vec<Bins>,
    /// Places in `bins` of frames that were forgotten.
    free: Vec<u32>,
    /// Faults of frames that were forgotten.
    pub(super) forgotten_faults: u64,
    /// Faults that one frame may have lost: each time the hottest of those forgotten.
    pub(super) forgotten_of_one: u64,
}

/// The faults on a frame.
#[derive(Clone, Copy, Debug)]
struct Faults {
    n: u64,
    n_refaults: u64,
    times: Times,
}

/// When a frame's faults were. Most frames are cold: they are forgotten before they need bins.
#[derive(Clone, Copy, Debug)]
enum Times {
    /// All in this bin.
    Bin(u8),
    /// In the bins at this place.
    Bins(u32),
}

const _: () = assert!(N_BINS <= 1 << u8::BITS, "a bin's number is a byte");

impl HeatMap {
    /// Counts a fault on `frame`.
    pub(super) fn add(&mut self, frame: Frame, bin: usize, is_refault: bool) {
        if self.frames.len() >= MAX_FRAMES && !self.frames.contains_key(&frame) {
            self.forget_colder_half();
        }
        let times = Times::Bin(bin as u8);
        let faults = self.frames.entry(frame).or_insert(Faults { n: 0, n_refaults: 0, times });
        match faults.times {
            Times::Bin(only) if usize::from(only) == bin => {}
            Times::Bin(only) => {
                let mut bins = one_bin(only, faults.n);
                count(&mut bins, bin);
                let place = self.free.pop().unwrap_or(self.bins.len() as u32);
                match self.bins.get_mut(place as usize) {
                    Some(place) => *place = bins,
                    None => self.bins.push(bins),
                }
                faults.times = Times::Bins(place);
            }
            Times::Bins(place) => count(&mut self.bins[place as usize], bin),
        }
        faults.n += 1;
        faults.n_refaults += u64::from(is_refault);
    }

    /// Frames that are remembered.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// The `n` frames with the most faults, the hottest first.
    pub(super) fn hottest(&self, n: usize) -> Vec<(Frame, Heat)> {
        let mut frames: Vec<(&Frame, &Faults)> = self.frames.iter().collect();
        frames.sort_by_key(|&(&frame, faults)| (Reverse(faults.n), frame));
        let heat = |&Faults { n, n_refaults, times }: &Faults| {
            let bins = match times {
                Times::Bin(only) => one_bin(only, n),
                Times::Bins(place) => self.bins[place as usize],
            };
            Heat { faults: n, refaults: n_refaults, bins }
        };
        frames.into_iter().take(n).map(|(&frame, faults)| (frame, heat(faults))).collect()
    }

    /// The same with the `n` hottest frames only.
    pub(super) fn with_hottest(&self, n: usize) -> Self {
        let &Self { forgotten_faults, forgotten_of_one, .. } = self;
        let mut few = Self { forgotten_faults, forgotten_of_one, ..Self::default() };
        for ((frame, heat), place) in self.hottest(n).into_iter().zip(0..) {
            few.bins.push(heat.bins);
            let (n, n_refaults) = (heat.faults, heat.refaults);
            few.frames.insert(frame, Faults { n, n_refaults, times: Times::Bins(place) });
        }
        few
    }

    /// Makes the bins twice as wide.
    pub(super) fn halve(&mut self) {
        self.bins.iter_mut().for_each(halve);
        for faults in self.frames.values_mut() {
            if let Times::Bin(only) = &mut faults.times {
                *only /= 2;
            }
        }
    }

    /// Forgets every frame that is no hotter than the one in the middle.
    fn forget_colder_half(&mut self) {
        let mut order: Vec<u64> = self.frames.values().map(|faults| faults.n).collect();
        let middle = order.len() / 2;
        let (_, &mut limit, _) = order.select_nth_unstable(middle);
        self.frames.retain(|_, faults| {
            let is_kept = faults.n > limit;
            if !is_kept {
                self.forgotten_faults += faults.n;
                if let Times::Bins(place) = faults.times {
                    self.free.push(place);
                }
            }
            is_kept
        });
        self.forgotten_of_one += limit;
    }
}

/// `n` faults in the bin `only`.
fn one_bin(only: u8, n: u64) -> Bins {
    let mut bins = [0; N_BINS];
    bins[usize::from(only)] = u32::try_from(n).unwrap_or(u32::MAX);
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(gfn: u64) -> Frame {
        Frame { holder: Holder::Process(1), gfn }
    }

    #[test]
    fn the_hottest_frame_survives_a_flood_of_cold_ones_and_what_is_forgotten_is_counted() {
        let mut map = HeatMap::default();
        let n_cold = 100_000;
        for gfn in 0..n_cold {
            map.add(frame(gfn + 1_000), 0, false);
            if gfn % 100 == 0 {
                map.add(frame(42), 1, true);
            }
        }
        assert!(map.len() <= MAX_FRAMES && map.bins.len() <= MAX_FRAMES);
        let kept: u64 = map.hottest(usize::MAX).iter().map(|(_, heat)| heat.faults).sum();
        assert_eq!(kept + map.forgotten_faults, n_cold + n_cold / 100);
        assert!((2..10).contains(&map.forgotten_of_one), "{}", map.forgotten_of_one);
        let (hottest, heat) = map.hottest(1).remove(0);
        assert_eq!((hottest.gfn, heat.faults, heat.refaults), (42, n_cold / 100, n_cold / 100));
        assert_eq!(heat.bins[..2], [0, 1000]);
    }

    #[test]
    fn a_place_of_a_forgotten_frame_starts_anew() {
        let mut map = HeatMap::default();
        for gfn in 0..3 * MAX_FRAMES as u64 {
            for bin in [(gfn % 2) as usize, 2, 4] {
                map.add(frame(gfn), bin, true);
            }
        }
        for (frame, heat) in map.hottest(usize::MAX) {
            let mut bins = [0; N_BINS];
            for bin in [(frame.gfn % 2) as usize, 2, 4] {
                bins[bin] = 1;
            }
            assert_eq!(heat, Heat { faults: 3, refaults: 3, bins });
        }
    }

    #[test]
    fn bins_become_wider_wherever_they_are() {
        let mut map = HeatMap::default();
        for (gfn, bin) in [(1, 5), (1, 5), (2, 5), (2, 8)] {
            map.add(frame(gfn), bin, false);
        }
        map.halve();
        map.add(frame(1), 2, false);
        let bins = |n: usize| map.hottest(2)[n].1.bins[..6].to_vec();
        assert_eq!([bins(0), bins(1)], [[0, 0, 3, 0, 0, 0], [0, 0, 1, 0, 1, 0]]);
    }

    #[test]
    fn only_the_hottest_are_taken_along() {
        let mut map = HeatMap::default();
        for (gfn, faults) in [(1, 2), (2, 3), (3, 1)] {
            (0..faults).for_each(|_| map.add(frame(gfn), 0, false));
        }
        let hottest = map.with_hottest(2);
        assert_eq!(hottest.hottest(9), map.hottest(2));
        assert_eq!(hottest.len(), 2);
    }
}

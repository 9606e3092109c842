//! A table for each shared exponent, so that one pass serves every format whose blocks share one.
//!
//! What a block format makes of a value depends on the value and on the exponent of its block's
//! largest magnitude alone. Not here: what tables hold ([`super::bins`], [`super::codes`]).

/// Tables at most: others of 3 MB would take a thread's memory beyond bounds.
const MAX_SLABS: usize = 8;

/// The exponent field that the largest magnitude of a block has in binary32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shared(u8);

impl Shared {
    /// Of values that belong to no block, or to one whose values are all zero, or to one that must
    /// be judged by itself.
    pub(super) const NONE: Shared = Shared(0);
    /// Below it, element formats would tell apart what binary32 counts with its subnormals.
    const LEAST: u8 = 37;

    /// From the exponent field; `None` where a block must be judged by itself: infinities, NaN and
    /// the smallest magnitudes.
    #[inline]
    pub(super) fn of(field: u8) -> Option<Shared> {
        (Shared::LEAST..u8::MAX).contains(&field).then_some(Shared(field))
    }

    /// `floor(log2)` of the largest magnitude; `None` for [`Shared::NONE`].
    pub(super) fn exponent(self) -> Option<i32> {
        (self != Shared::NONE).then(|| i32::from(self.0) - 127)
    }
}

/// Tables, made when first asked for.
#[derive(Clone, Debug)]
pub(super) struct Slabs<T> {
    /// Where each one's table is, plus 1; 0 without.
    places: Box<[u8; 256]>,
    slabs: Vec<(Shared, T)>,
}

impl<T> Slabs<T> {
    pub(super) fn new() -> Slabs<T> {
        Slabs { places: Box::new([0; 256]), slabs: Vec::new() }
    }

    /// `None` when there are too many; never for [`Shared::NONE`].
    #[inline]
    pub(super) fn get(&mut self, shared: Shared, make: impl FnOnce() -> T) -> Option<&mut T> {
        let place = &mut self.places[usize::from(shared.0)];
        if *place == 0 {
            if MAX_SLABS <= self.slabs.len() && shared != Shared::NONE {
                return None;
            }
            self.slabs.push((shared, make()));
            *place = self.slabs.len() as u8;
        }
        self.slabs.get_mut(usize::from(*place) - 1).map(|(_, slab)| slab)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Shared, &mut T)> {
        self.slabs.iter_mut().map(|(shared, slab)| (*shared, slab))
    }

    pub(super) fn clear(&mut self) {
        *self = Slabs::new();
    }
}

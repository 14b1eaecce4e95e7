//! Arrays at a fixed place, to which structures of the kernel may hold pointers while their owner moves.

#![expect(
    unsafe_code,
    reason = "an array is reached through the pointer that the kernel's structures hold, too"
)]

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// An array that stays where it is until it is dropped.
pub(super) struct Fixed<T>(NonNull<[T]>);

impl<T> Fixed<T> {
    pub(super) fn new(items: Vec<T>) -> Self {
        Self(NonNull::from(Box::leak(items.into_boxed_slice())))
    }

    /// A pointer to element `index`, derived from the allocation itself: using it does not conflict with slices that
    /// were borrowed through `Deref` and ended.
    pub(super) fn at(&self, index: usize) -> *mut T {
        assert!(index < self.0.len(), "index within the array");
        // SAFETY: `index` is in bounds of the allocation, checked above.
        unsafe { self.0.cast::<T>().as_ptr().add(index) }
    }
}

impl<T> Deref for Fixed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the pointer is to a live allocation that this value owns, and the kernel writes to it only within
        // calls that take the owner by `&mut`.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for Fixed<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` makes the borrow the only one.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for Fixed<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a leaked box in `new` and is given back once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

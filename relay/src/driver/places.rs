//! A table whose places are dense and reused: what the tokens of the event queue name.

/// Boxes by their places. Memory grows with the largest number of places ever taken at a time.
pub(crate) struct Places<T> {
    table: Vec<Option<Box<T>>>,
    free: Vec<usize>,
}

impl<T> Places<T> {
    pub(crate) fn new() -> Self {
        Self {
            table: Vec::new(),
            free: Vec::new(),
        }
    }

    /// How many places are taken.
    pub(crate) fn len(&self) -> usize {
        self.table.len() - self.free.len()
    }

    /// Every place that was ever taken is below this one.
    pub(crate) fn end(&self) -> usize {
        self.table.len()
    }

    /// The place of the one that is inserted next.
    pub(crate) fn next(&self) -> usize {
        self.free.last().copied().unwrap_or(self.table.len())
    }

    /// Puts `item` at [`Places::next`].
    pub(crate) fn insert(&mut self, item: Box<T>) {
        match self.free.pop() {
            Some(index) => self.table[index] = Some(item),
            None => self.table.push(Some(item)),
        }
    }

    pub(crate) fn at(&self, index: usize) -> Option<&T> {
        self.table.get(index)?.as_deref()
    }

    pub(crate) fn at_mut(&mut self, index: usize) -> Option<&mut T> {
        self.table.get_mut(index)?.as_deref_mut()
    }

    /// Takes what is at `index`, whose place is free from here on.
    pub(crate) fn take(&mut self, index: usize) -> Option<Box<T>> {
        let item = self.table.get_mut(index)?.take()?;
        self.free.push(index);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_reused_once_it_is_free() {
        let mut places = Places::new();
        for (index, name) in ["one", "two", "three"].into_iter().enumerate() {
            assert_eq!(places.next(), index);
            places.insert(Box::new(name));
        }
        assert_eq!(places.take(1), Some(Box::new("two")));
        assert_eq!(places.take(1), None);
        assert_eq!((places.len(), places.end(), places.next()), (2, 3, 1));
        places.insert(Box::new("four"));
        assert_eq!(places.at(1), Some(&"four"));
        assert_eq!((places.len(), places.end(), places.next()), (3, 3, 3));
    }
}

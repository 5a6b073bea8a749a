//! A list in order, for what is kept many times over and changes little: it takes no more than its items do.

use std::borrow::Borrow;
use std::collections::BTreeSet;

/// Items in order; equal ones may be in it several times.
#[derive(Debug, Clone)]
pub(crate) struct SortedList<T>(Vec<T>);

impl<T> Default for SortedList<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> SortedList<T> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }
}

impl<T> IntoIterator for SortedList<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<T: Ord> SortedList<T> {
    /// Adds items. A few are put in their places; with many everything is put in order.
    pub(crate) fn add(&mut self, items: Vec<T>) {
        if items.len() > self.0.len() / 16 + 1 {
            self.0.reserve_exact(items.len());
            self.0.extend(items);
            // What is in order already is found to be so.
            self.0.sort();
            return;
        }
        for item in items {
            let place = self.0.partition_point(|known| *known < item);
            self.insert(place, item);
        }
    }

    /// Where an item is, or would have to be.
    pub(crate) fn find<K: Ord + ?Sized>(&self, key: &K) -> Result<usize, usize>
    where
        T: Borrow<K>,
    {
        let place = self.0.partition_point(|known| known.borrow() < key);
        match self.0.get(place) {
            Some(known) if known.borrow() == key => Ok(place),
            _ => Err(place),
        }
    }

    /// Puts an item in the place that [`find`](Self::find) named.
    pub(crate) fn insert(&mut self, place: usize, item: T) {
        if self.0.len() == self.0.capacity() {
            // By an eighth: twice as much would stand empty for as long as nothing comes.
            self.0.reserve_exact(self.0.len() / 8 + 1);
        }
        self.0.insert(place, item);
    }

    pub(crate) fn remove(&mut self, place: usize) -> T {
        self.0.remove(place)
    }

    /// Takes out all that have one of these keys, in order.
    pub(crate) fn take<K: Ord>(&mut self, keys: &BTreeSet<K>) -> Vec<T>
    where
        T: Borrow<K>,
    {
        if keys.len() > self.0.len() / 16 + 1 {
            return self.0.extract_if(.., |item| keys.contains((*item).borrow())).collect();
        }
        keys.iter().filter_map(|key| self.find(key).ok().map(|place| self.remove(place))).collect()
    }

    pub(crate) fn contains<K: Ord + ?Sized>(&self, key: &K) -> bool
    where
        T: Borrow<K>,
    {
        self.find(key).is_ok()
    }

    /// Takes out one item for each of these keys, in order; `None` if one of them is not there, and then some are taken.
    pub(crate) fn subtract<K: Ord>(&mut self, mut keys: Vec<K>) -> Option<Vec<T>>
    where
        T: Borrow<K>,
    {
        if keys.len() <= self.0.len() / 16 + 1 {
            keys.sort_unstable();
            return keys.iter().map(|key| self.find(key).ok().map(|place| self.remove(place))).collect();
        }
        keys.sort_unstable();
        let mut rest = keys.iter().peekable();
        let taken: Vec<T> =
            self.0.extract_if(.., |item| rest.next_if(|key| (*item).borrow() == *key).is_some()).collect();
        (taken.len() == keys.len()).then_some(taken)
    }

    /// The items for which there is none among these keys, which are in order: each key stands for one item.
    pub(crate) fn without<'a, K: Ord>(&'a self, keys: &'a [K]) -> impl Iterator<Item = &'a T>
    where
        T: Borrow<K>,
    {
        let mut rest = keys.iter().peekable();
        self.0.iter().filter(move |item| {
            let item: &K = (*item).borrow();
            while rest.next_if(|key| *key < item).is_some() {}
            rest.next_if(|key| *key == item).is_none()
        })
    }

    /// The keys, which are in order, for which there is no item: each item stands for one key.
    pub(crate) fn missing<K: Ord>(&self, mut keys: Vec<K>) -> Vec<K>
    where
        T: Borrow<K>,
    {
        let mut rest = self.0.iter().peekable();
        keys.retain(|key| {
            while rest.next_if(|item| (**item).borrow() < key).is_some() {}
            rest.next_if(|item| (**item).borrow() == key).is_none()
        });
        keys
    }

    /// Each item once.
    pub(crate) fn distinct(&self) -> impl Iterator<Item = &T> {
        self.0.chunk_by(PartialEq::eq).filter_map(<[T]>::first)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    pub(crate) fn get(&self, place: usize) -> &T {
        &self.0[place]
    }

    /// To be changed in what its place does not depend on.
    pub(crate) fn get_mut(&mut self, place: usize) -> &mut T {
        &mut self.0[place]
    }

    /// The same of all.
    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.0.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_in_order_however_they_come() {
        let mut list = SortedList::default();
        list.add(vec![5, 1, 9, 1]);
        list.add((100..200).collect());
        list.add(vec![7]);
        list.add(vec![0, 300]);
        assert_eq!(list.iter().take(7).copied().collect::<Vec<_>>(), [0, 1, 1, 5, 7, 9, 100]);
        assert_eq!((list.len(), list.distinct().count()), (107, 106));
        assert_eq!((list.find(&1), list.find(&6)), (Ok(1), Err(4)));
        assert_eq!(list.remove(1), 1);
        assert_eq!(list.take(&[7, 8].into()), [7]);
        assert_eq!(list.take(&(100..300).collect()).len(), 100);
        assert_eq!(list.iter().copied().collect::<Vec<_>>(), [0, 1, 5, 9, 300]);
        assert!(list.contains(&1) && list.is_empty() != list.contains(&300));
    }

    #[test]
    fn equal_items_stand_each_for_one_key() {
        let mut list = SortedList::default();
        list.add(vec![1, 1, 2, 4, 4, 4]);
        assert_eq!(list.without(&[1, 3, 4, 4]).copied().collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(list.missing(vec![1, 1, 1, 3, 4]), [1, 3]);
        assert_eq!(list.subtract(vec![4]), Some(vec![4]));
        assert_eq!(list.subtract(vec![4, 1, 2]), Some(vec![1, 2, 4]));
        assert_eq!(list.iter().copied().collect::<Vec<_>>(), [1, 4]);
        assert_eq!((list.subtract(vec![4, 4]), list.clone().subtract(vec![0, 1, 3])), (None, None));
    }
}

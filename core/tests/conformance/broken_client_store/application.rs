//! The application's side of a broken client store.

use std::sync::Arc;

use syncline_core::testing::client_store_suite::Subject;
use syncline_core::{ClientStore, LocalTransaction, LocalWrite, PublishRequest, WallTime, WriteKind, async_trait};

use super::{BrokenClientStore, Row};
use crate::client_faults::ClientFault::*;

#[async_trait]
impl Subject for BrokenClientStore {
    fn store(&self) -> Arc<dyn ClientStore> {
        Arc::new(self.clone())
    }

    async fn write(&self, writes: Vec<LocalWrite>) {
        for write in &writes {
            let shown = self.inner.rows(&write.table).into_iter().find(|row| row["id"] == *write.id);
            let mut notes = self.notes();
            notes.before.extend(shown.map(|row| (write.id.clone(), row)));
            if write.op == WriteKind::Put {
                let mut row = write.data.clone().unwrap_or_default();
                row.insert("id".to_owned(), write.id.clone().into());
                notes.inserted.insert((write.table.to_string(), write.id.clone()), row);
            }
        }
        match self.fault {
            WritesAreSeenBySyncFirst | LosesWritesInACrash | QueueInOrderOfRows => self.notes().buffered.push(writes),
            EveryWriteIsATransaction => writes.into_iter().for_each(|write| _ = self.inner.write([write])),
            _ => _ = self.inner.write(writes),
        }
    }

    async fn rows(&self, table: &str) -> Vec<Row> {
        if !self.is(WritesAreSeenBySyncFirst) {
            self.flush();
        }
        let mut rows = self.inner.rows(table);
        let notes = self.notes();
        if self.is(ShowsWhatIsStaged) {
            for put in notes.staged.iter().filter(|put| put.object_type == table) {
                let mut row: Row =
                    put.data.as_deref().and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
                row.insert("id".to_owned(), put.object_id.to_string().into());
                rows.retain(|shown| shown["id"] != row["id"]);
                rows.push(row);
            }
        }
        if self.is(InsertedRowsStay) {
            for ((_, id), row) in notes.inserted.iter().filter(|((of, _), _)| of == table) {
                if !rows.iter().any(|shown| shown["id"] == **id) {
                    rows.push(row.clone());
                }
            }
        }
        if notes.undone {
            let before = |row: &Row| notes.before.get(row["id"].as_str()?).cloned();
            rows = rows.into_iter().map(|row| before(&row).unwrap_or(row)).collect();
        }
        rows
    }

    async fn rejected(&self) -> Vec<(LocalTransaction, String)> {
        self.inner.rejected()
    }

    async fn reopen(&mut self) {
        match self.fault {
            LosesDownloadsInACrash => self.forget_downloads().await.unwrap(),
            LosesRowsInACrash => {
                self.forget_downloads().await.unwrap();
                let (target, requested) = (Arc::default(), Arc::from([]));
                let nothing = PublishRequest { target, partial: None, requested, now: WallTime(0) };
                self.inner.publish(&nothing).await.unwrap();
            }
            LosesWritesInACrash => self.notes().buffered.clear(),
            LosesSubscriptionsInACrash => drop(self.inner.resume(WallTime(i64::MAX)).await.unwrap()),
            _ => self.flush(),
        }
        let mut notes = self.notes();
        notes.starts += 1;
        notes.covers_lost = self.fault == LosesCoversInACrash;
        if self.fault == LosesWhatWasSentInACrash {
            notes.sent_again = notes.finished.take();
        }
    }
}

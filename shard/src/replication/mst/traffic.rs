//! What an exchange moved and looked at.

use std::ops::AddAssign;

/// What was counted on the leader's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Ranges compared.
    pub pages: u64,
    /// Entries sent.
    pub given: u64,
    /// Entries received.
    pub received: u64,
    /// Requests.
    pub requests: u64,
    /// Bytes of the requests.
    pub bytes_sent: u64,
    /// Bytes of the answers.
    pub bytes_received: u64,
}

impl Traffic {
    /// What came since an earlier count.
    pub(super) fn since(self, earlier: Traffic) -> Traffic {
        Traffic {
            pages: self.pages - earlier.pages,
            given: self.given - earlier.given,
            received: self.received - earlier.received,
            requests: self.requests - earlier.requests,
            bytes_sent: self.bytes_sent - earlier.bytes_sent,
            bytes_received: self.bytes_received - earlier.bytes_received,
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.pages += other.pages;
        self.given += other.given;
        self.received += other.received;
        self.requests += other.requests;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
    }
}

//! quorate-raft-core

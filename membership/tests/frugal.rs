//! What a record announces is not believed without bound: reading one never allocates more than the codec's limit.
//!
//! A test binary of its own, because it counts every allocation of its process.

#![expect(unsafe_code, reason = "an allocator that counts can only be written so; it hands everything to the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_membership::codec::{self, LIMIT};
use quorate_membership::{Address, Command, NodeId};

/// The largest single allocation since it was last set to zero.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn whatever_a_record_announces_no_allocation_exceeds_the_limit() {
    let command =
        Command::SetAddresses { node: NodeId::new(3), addresses: vec![Address::new("host:1").unwrap()], by: None };
    let good = codec::encode(&command).unwrap();
    let mut worst = (0, String::new());
    // Every place in the payload in turn announces something large, under a checksum that fits.
    for at in 16..=good.len() - 8 {
        for announced in [1 << 16, 1 << 20, (LIMIT - 64) as u64, u64::MAX] {
            let mut bytes = good.clone();
            bytes[at..at + 8].copy_from_slice(&announced.to_le_bytes());
            let crc = crc32c::crc32c(&[&bytes[..12], &bytes[16..]].concat());
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            LARGEST.store(0, Ordering::Relaxed);
            let answer = codec::decode::<Command>(&bytes).map(|_| ());
            let largest = LARGEST.load(Ordering::Relaxed);
            if largest > worst.0 {
                worst = (largest, format!("{announced} announced at {at}: {answer:?}"));
            }
        }
    }
    println!("largest: {worst:?}");
    assert!(worst.0 <= LIMIT, "{} bytes were allocated for {} by {}", worst.0, good.len(), worst.1);
}

//! Both sides of the ABI, and every decision a probe makes.
//!
//! This library is `no_std`, knows neither aya nor the kernel's memory, and is compiled twice: into
//! the BPF object (`main.rs`) and into userspace. What a probe decides (which cause, which outcome,
//! which bucket) stands here as plain functions over plain values, so that host unit tests reach the
//! very code that runs in the kernel.
//!
//! - [`abi`]: wire types of maps, ring buffer and configuration;
//! - [`kind`]: the closed enumerations that label counters;
//! - [`task`]: what one task is doing: its bracket stack, its `change_pte` call, its guest fault;
//! - [`decide`]: causes, outcomes, avoidability;
//! - [`histogram`]: the log-linear buckets of every duration.

#![no_std]

pub mod abi;
pub mod decide;
pub mod histogram;
pub mod kind;
pub mod page;
pub mod task;

/// A zero that the compiler does not know. Where it does, it clears neighbouring fields with a call of `memset`,
/// which on BPF is a loop over bytes.
#[inline(always)]
#[must_use]
pub fn opaque_zero() -> u64 {
    core::hint::black_box(0)
}

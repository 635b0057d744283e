//! Captures: what is written is read back, and of what is damaged as much as is left.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use mmu_trace::{
    capture::{
        Damage, EndReason, Events, FORMAT_VERSION, Item, Meta, ReadError, Reader, WriteError, Writer, summary,
    },
    model::{
        Backend, Counters, Histograms, Hook, HookState, Host, Ksm, KsmAccount, ProgramRuns, Quality,
        Snapshot, Vm, VmIdentity, Window,
    },
    source::{Replay, Source},
};
use mmu_trace_ebpf::{
    abi::Event,
    kind::{Cause, Outcome},
};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, proptest};
use tempfile::TempDir;
use zerocopy::{FromBytes, IntoBytes};

/// Length of the file header.
const HEADER_LEN: usize = 20;

/// Behind the magic number: with one of its bytes changed the file is no capture.
const FORMAT_AT: usize = 8;

fn meta() -> Meta {
    let hook = Hook {
        hook: "change_pte".to_owned(),
        symbol: "__mmu_notifier_change_pte".to_owned(),
        backend: Backend::Kprobe,
        state: HookState::Attached,
        required: true,
        reason: None,
    };
    Meta {
        tool_version: "0.1.0".to_owned(),
        host: host(),
        start_unix_ns: 1_700_000_000_000_000_000,
        start_monotonic_ns: 5,
        hooks: vec![hook],
        command: vec!["sleep".to_owned(), "1".to_owned()],
        vm_filter: Vec::new(),
    }
}

fn host() -> Host {
    Host { kernel: "6.1.0-56-cloud-amd64".to_owned(), arch: "x86_64".to_owned(), has_change_pte: true }
}

fn snapshot(calls: u64) -> Snapshot {
    let outcomes = [(Outcome::NoopZappedByBracket, calls)].into();
    let counters = Counters { change_pte: [(Cause::KsmReplace, outcomes)].into(), ..Counters::default() };
    let histograms = Histograms { fault: [(12, 3), (400, 1)].into(), ..Histograms::default() };
    let vm = Vm {
        identity: VmIdentity { name: "guest".to_owned(), pid: 7, ..VmIdentity::default() },
        mmu: None,
        alive: true,
        counters: counters.clone(),
        histograms: Some(histograms.clone()),
        ksm: KsmAccount { merging_pages: Some(12), profit_bytes: Some(-64) },
    };
    let window = Window { start_unix_ns: 1, seconds: 2.5 };
    let quality = Quality::default();
    let ksm = Some(Ksm { pages_sharing: 12, ..Ksm::default() });
    let programs = Some(vec![ProgramRuns { program: "a".to_owned(), runs: 3, run_ns: 600 }]);
    Snapshot {
        host: host(),
        window,
        quality,
        vms: vec![vm],
        unattributed: counters,
        histograms,
        ksm,
        programs,
    }
}

fn event(ts_ns: u64) -> Event {
    let mut bytes = [0; size_of::<Event>()];
    bytes[..8].copy_from_slice(&ts_ns.to_le_bytes());
    bytes[8] = 200;
    Event::read_from_bytes(&bytes).unwrap()
}

/// A capture of META, three EVENTS and three SNAPSHOT blocks and END.
fn write_capture(path: &Path) {
    let mut writer = Writer::create(path, &meta()).unwrap();
    for round in 1..=3 {
        writer.write_events(&[event(round), event(round + 10)]).unwrap();
        writer.write_snapshot(&snapshot(round)).unwrap();
    }
    let end = writer.finish(EndReason::Duration, 4).unwrap();
    assert_eq!((end.events_written, end.events_lost), (6, 4));
}

fn capture_bytes() -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("c");
    write_capture(&path);
    fs::read(path).unwrap()
}

/// What was read of a capture, item by item.
#[derive(Debug, Default, PartialEq)]
struct Outline {
    items: Vec<String>,
    damage: Vec<Damage>,
    truncated: Option<u64>,
    skipped_blocks: u64,
}

fn outline(bytes: &[u8]) -> Result<Outline, ReadError> {
    outline_with(bytes, Events::Unpack)
}

fn outline_with(bytes: &[u8], events: Events) -> Result<Outline, ReadError> {
    let mut reader = Reader::new(bytes, Path::new("c"), events)?;
    let mut outline = Outline::default();
    for item in &mut reader {
        match item? {
            Item::Meta(meta) => outline.items.push(format!("meta {}", meta.tool_version)),
            Item::Events(events) => outline.items.extend(events.iter().map(|e| format!("event {}", e.ts_ns))),
            Item::EventCount(n) => outline.items.push(format!("{n} events")),
            Item::Snapshot(s) => {
                outline.items.push(format!("snapshot {}", s.unattributed.change_pte_calls()));
            }
            Item::End(end) => outline.items.push(format!("end {:?}", end.reason)),
            Item::Damage(damage) => outline.damage.push(damage),
        }
    }
    (outline.truncated, outline.skipped_blocks) = (reader.truncated(), reader.skipped_blocks());
    Ok(outline)
}

/// Where each block starts, and the end of the file.
fn block_starts(bytes: &[u8]) -> Vec<usize> {
    let magic = &bytes[HEADER_LEN..HEADER_LEN + 4];
    let starts = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(magic));
    starts.chain([bytes.len()]).collect()
}

/// The file with `word` at `offset` of its header and a valid checksum.
fn with_header_word(offset: usize, word: u32) -> Vec<u8> {
    let mut bytes = capture_bytes();
    bytes[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..16]);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A block of type `kind` with one item but an empty payload.
fn foreign_block(kind: u8, flags: u8) -> Vec<u8> {
    let mut block = [0x74, 0x6d, 0x0c, 0xb1, kind, flags].to_vec();
    block.resize(16, 0);
    block.extend(1_u32.to_le_bytes());
    let crc = crc32c::crc32c(&block);
    block.extend(crc.to_le_bytes());
    block
}

#[test]
fn a_capture_is_read_back_whole() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("c");
    write_capture(&path);
    let summary = summary(&path).unwrap();
    assert!(summary.is_intact());
    assert_eq!(summary.meta, Some(meta()));
    assert_eq!(summary.snapshot, Some(Box::new(snapshot(3))));
    assert_eq!((summary.events, summary.snapshots), (6, 3));
    assert_eq!(summary.end.unwrap().reason, EndReason::Duration);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn without_end_mark_the_last_snapshot_is_there_and_marked() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("c");
    let mut writer = Writer::create(&path, &meta()).unwrap();
    writer.write_snapshot(&snapshot(1)).unwrap();
    writer.write_events(&[event(1)]).unwrap();
    drop(writer);
    let summary = summary(&path).unwrap();
    assert_eq!(summary.truncated, Some(fs::metadata(&path).unwrap().len()));
    assert!(summary.snapshot.unwrap().quality.truncated);
    assert_eq!((summary.damage, summary.events), (Vec::new(), 0));
}

#[test]
fn every_truncation_keeps_what_is_before_and_says_where() {
    let bytes = capture_bytes();
    let whole = outline(&bytes).unwrap();
    let starts = block_starts(&bytes);
    for len in 1..bytes.len() {
        let cut = outline(&bytes[..len]).unwrap();
        let header = if len < HEADER_LEN { 0 } else { HEADER_LEN };
        let intact = starts.iter().copied().filter(|&start| start <= len).max().unwrap_or(header);
        assert_eq!(cut.truncated, Some(intact as u64), "cut to {len}");
        assert_eq!(whole.items[..cut.items.len()], cut.items[..], "cut to {len}");
        let damage = Damage { position: intact as u64, bytes: (len - intact) as u64 };
        assert_eq!(cut.damage, if len > intact { vec![damage] } else { Vec::new() }, "cut to {len}");
    }
}

#[test]
fn events_that_are_only_counted_are_as_well_guarded() {
    let mut bytes = capture_bytes();
    let counted = outline_with(&bytes, Events::Count).unwrap();
    let expected =
        ["meta 0.1.0", "2 events", "snapshot 1", "2 events", "snapshot 2", "2 events", "snapshot 3"];
    assert_eq!(counted.items[..7], expected);
    for at in FORMAT_AT..bytes.len() {
        bytes[at] ^= 0x5a;
        let [unpacked, counted] = [Events::Unpack, Events::Count].map(|e| outline_with(&bytes, e).unwrap());
        bytes[at] ^= 0x5a;
        assert_eq!(counted.damage, unpacked.damage, "byte {at}");
        assert_eq!(counted.truncated, unpacked.truncated, "byte {at}");
    }
}

#[test]
fn every_changed_byte_costs_its_block_and_no_other() {
    let mut bytes = capture_bytes();
    let starts = block_starts(&bytes);
    for at in FORMAT_AT..bytes.len() {
        bytes[at] ^= 0x5a;
        let read = outline(&bytes).unwrap();
        bytes[at] ^= 0x5a;
        let block = starts.iter().position(|&start| start > at).unwrap();
        let first = if block == 0 { 0 } else { starts[block - 1] };
        let damage = Damage { position: first as u64, bytes: (starts[block] - first) as u64 };
        assert_eq!(read.damage, [damage], "byte {at}");
        assert_eq!(read.truncated.is_some(), block == starts.len() - 1, "byte {at}");
    }
}

/// The calls in each snapshot of a replay, and whether what follows it is missing.
fn replayed(bytes: &[u8]) -> Vec<(u64, bool)> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("c");
    fs::write(&path, bytes).unwrap();
    let mut replay = Replay::stepping(&path).unwrap().unwrap();
    let mut seen = Vec::new();
    while !replay.is_over() {
        let snapshot = replay.snapshot().unwrap();
        seen.push((snapshot.unattributed.change_pte_calls(), snapshot.quality.truncated));
    }
    assert_eq!(replay.snapshot().unwrap().unattributed.change_pte_calls(), seen.last().unwrap().0);
    seen
}

#[test]
fn a_replay_gives_the_snapshots_in_order_and_marks_what_is_missing() {
    let bytes = capture_bytes();
    assert_eq!(replayed(&bytes), [(1, false), (2, false), (3, false)]);
    let starts = block_starts(&bytes);
    assert_eq!(replayed(&bytes[..starts[starts.len() - 3]]), [(1, false), (2, true)]);
    let mut damaged = bytes.clone();
    damaged[starts[4] + 30] ^= 1;
    assert_eq!(replayed(&damaged), [(1, true), (3, false)]);
}

#[test]
fn a_replay_needs_figures() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("c");
    let bytes = capture_bytes();
    fs::write(&path, &bytes[..block_starts(&bytes)[1]]).unwrap();
    assert!(Replay::stepping(&path).unwrap().is_none());
    let none = Replay::stepping(&dir.path().join("none"));
    assert!(matches!(none.err(), Some(ReadError::Open { .. })));
}

#[test]
fn damage_makes_the_snapshot_before_it_stale() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("c");
    let mut bytes = capture_bytes();
    let starts = block_starts(&bytes);
    let last_snapshot = starts[starts.len() - 3];
    bytes[last_snapshot + 30] ^= 1;
    fs::write(&path, bytes).unwrap();
    let summary = summary(&path).unwrap();
    assert_eq!((summary.truncated, summary.snapshots, summary.damage.len()), (None, 2, 1));
    assert!(summary.snapshot.unwrap().quality.truncated);
}

#[test]
fn other_versions_are_named() {
    let newer = outline(&with_header_word(8, FORMAT_VERSION + 1));
    let expected = FORMAT_VERSION + 1;
    assert!(matches!(newer, Err(ReadError::NewerVersion { found, .. }) if found == expected));
    let older = outline(&with_header_word(8, 1));
    assert!(matches!(older, Err(ReadError::OlderVersion { found: 1, supported: FORMAT_VERSION, .. })));
    assert!(matches!(outline(&with_header_word(12, 99)), Err(ReadError::OtherAbi { found: 99, .. })));
}

#[test]
fn what_is_no_capture_is_told_from_what_is_empty() {
    assert!(matches!(outline(b""), Err(ReadError::Empty { .. })));
    assert!(matches!(outline(b"\x7fELF and so on, and so on"), Err(ReadError::NotACapture { .. })));
    assert!(matches!(outline(b"x"), Err(ReadError::NotACapture { .. })));
    assert!(matches!(Reader::open(Path::new("/nonexistent"), Events::Count), Err(ReadError::Open { .. })));
}

#[test]
fn unknown_blocks_are_skipped_only_where_the_writer_allowed_it() {
    let bytes = capture_bytes();
    let at = block_starts(&bytes)[1];
    let insert = |block: Vec<u8>| [&bytes[..at], &block, &bytes[at..]].concat();
    let skipped = outline(&insert(foreign_block(77, 1))).unwrap();
    assert_eq!((skipped.skipped_blocks, skipped.damage.len()), (1, 0));
    assert_eq!(skipped.items, outline(&bytes).unwrap().items);
    let refused = outline(&insert(foreign_block(77, 0)));
    assert!(
        matches!(refused, Err(ReadError::UnknownBlock { kind: 77, position, .. }) if position == at as u64)
    );
}

#[test]
fn a_valid_checksum_around_nonsense_is_damage() {
    let bytes = capture_bytes();
    let at = block_starts(&bytes)[1];
    for kind in 1..=4 {
        let read = outline(&[&bytes[..at], &foreign_block(kind, 0), &bytes[at..]].concat()).unwrap();
        assert_eq!(read.damage, [Damage { position: at as u64, bytes: 24 }], "type {kind}");
    }
}

/// A block of `items` events with a valid checksum, whose payload is `raw`.
fn events_block(items: u32, raw: &[u8]) -> Vec<u8> {
    let stored = zstd::bulk::compress(raw, 1).unwrap();
    let mut block = [0x74, 0x6d, 0x0c, 0xb1, 2, 0, 0, 0].to_vec();
    block.extend([stored.len() as u32, raw.len() as u32, items].map(u32::to_le_bytes).concat());
    block.extend(crc32c::crc32c_append(crc32c::crc32c(&block), &stored).to_le_bytes());
    [block, stored].concat()
}

#[test]
fn a_block_whose_events_cannot_be_is_damage() {
    let bytes = capture_bytes();
    let at = block_starts(&bytes)[1];
    let zeros = vec![0; 16 << 20];
    for (items, raw) in [(u32::MAX, &zeros[..]), (1 << 16, &zeros), (0, &zeros), (1, &[1; 30]), (9, b"")] {
        let block = events_block(items, raw);
        let read = outline(&[&bytes[..at], &block, &bytes[at..]].concat()).unwrap();
        let damage = Damage { position: at as u64, bytes: block.len() as u64 };
        assert_eq!((read.damage, read.items.len()), (vec![damage], 11), "{items} events");
    }
}

#[test]
fn nothing_but_false_starts_ends_in_an_error() {
    let mut block = foreign_block(1, 0);
    block[8..12].copy_from_slice(&(1_u32 << 20).to_le_bytes());
    let bytes = [capture_bytes()[..HEADER_LEN].to_vec(), block.repeat(20_000)].concat();
    assert!(matches!(outline(&bytes), Err(ReadError::TooDamaged { .. })));
}

#[test]
fn only_captures_and_empty_files_are_replaced() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("c");
    fs::write(&path, "my diary").unwrap();
    let refused = Writer::create(&path, &meta()).err().unwrap();
    assert!(matches!(refused, WriteError::Refused { what: "not a capture", .. }));
    assert_eq!(fs::read(&path).unwrap(), b"my diary");
    fs::write(&path, "").unwrap();
    write_capture(&path);
    let writer = Writer::create(&path, &meta()).unwrap();
    let busy = Writer::create(&path, &meta()).err().unwrap();
    assert!(matches!(busy, WriteError::Refused { what: "a capture that is being written", .. }));
    writer.finish(EndReason::Interrupted, 0).unwrap();
    assert_eq!(summary(&path).unwrap().events, 0, "the older capture is gone");
    let device = Writer::create(Path::new("/dev/null"), &meta()).err().unwrap();
    assert!(matches!(device, WriteError::Refused { what: "not a regular file", .. }));
}

#[test]
fn a_full_disk_is_said_with_what_can_still_be_read() {
    let full: File = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = Writer::from_file(full, Path::new("out.mmut"), &meta()).err().unwrap();
    assert!(matches!(error, WriteError::Full { intact: 0, .. }));
    let message = "no room to go on writing out.mmut; the 0 bytes written so far are readable";
    assert_eq!(error.to_string(), message);
    assert!(std::error::Error::source(&error).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn events_survive_in_order_however_they_are_batched(
        batches in prop::collection::vec(prop::collection::vec(any::<[u64; 8]>(), 0..2000), 0..12),
    ) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("c");
        let mut writer = Writer::create(&path, &meta()).unwrap();
        for batch in &batches {
            let events: Vec<_> = batch.iter().map(|e| Event::read_from_bytes(e.as_bytes()).unwrap()).collect();
            writer.write_events(&events).unwrap();
        }
        let end = writer.finish(EndReason::Command, 0).unwrap();
        let mut read = Vec::new();
        for item in Reader::open(&path, Events::Unpack).unwrap() {
            if let Item::Events(events) = item.unwrap() {
                read.extend(events.as_bytes().to_vec());
            }
        }
        let written: Vec<u8> = batches.iter().flatten().flat_map(|e| e.as_bytes().to_vec()).collect();
        prop_assert_eq!(end.events_written as usize, written.len() / 64);
        prop_assert_eq!(read, written);
    }

    #[test]
    fn arbitrary_bytes_behind_a_header_never_panic(tail in prop::collection::vec(any::<u8>(), 0..2000)) {
        let bytes = [&capture_bytes()[..HEADER_LEN], &tail].concat();
        let read = outline(&bytes).unwrap();
        prop_assert_eq!(read.damage.iter().map(|d| d.bytes).sum::<u64>(), tail.len() as u64);
    }
}

//! What a process can do no more once it has given up what it does not need.
//!
//! Each case runs in a process of its own: this program again, with the case's name. It makes attempts
//! before and after `sandbox::apply`: what the kernel took notice of before must be refused afterwards, so a
//! case cannot pass because a machine refuses the attempt anyway.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io,
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::{fs::OpenOptionsExt, net::UnixDatagram, process::CommandExt},
    path::Path,
    process::{Command, ExitCode},
    thread,
};

use libc::c_long;
use mmu_trace::sandbox::{self, Layer, Needs, Sandbox};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// A name and what is done, in a folder of its own.
type Case = (&'static str, fn(&Path));

const CASES: &[Case] = &[
    ("no system call beyond those of a server reaches the kernel", system_calls),
    ("arguments decide where a call is needed", arguments),
    ("no file is written, and only those that are named are read", files),
    ("a text file is written, and nothing beside its folder", text_file),
    ("without landlock no file is opened for writing either", opening_for_writing),
    ("capabilities are gone for good", capabilities_are_gone),
    ("each need keeps its capabilities", kept_capabilities),
    ("new threads are restricted as well", threads),
    ("what a server does still works", serving),
    ("what is left may be given up later", in_two_steps),
    ("a child can be ended and waited for", child),
];

fn main() -> ExitCode {
    let args: Vec<String> = env::args().collect();
    if let Some(number) = args.get(1).and_then(|arg| arg.strip_prefix("--case=")) {
        let (_, case) = CASES[number.parse::<usize>().unwrap()];
        case(Path::new(&args[2]));
        return ExitCode::SUCCESS;
    }
    let is_wanted = |name: &str| args.get(1).is_none_or(|arg| arg.starts_with('-') || name.contains(arg));
    let (mut passed, mut failed) = (0, 0);
    for (number, (name, _)) in CASES.iter().enumerate().filter(|(_, (name, _))| is_wanted(name)) {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        let status = command.arg(format!("--case={number}")).arg(dir.path()).status().unwrap();
        println!("test {name} ... {}", if status.success() { "ok" } else { "FAILED" });
        *if status.success() { &mut passed } else { &mut failed } += 1;
    }
    println!("\ntest result: {passed} passed; {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn apply(needs: &Needs) -> Sandbox {
    let sandbox = sandbox::apply(needs);
    for (layer, state) in &sandbox.layers {
        // Landlock is the one that a kernel may lack.
        assert!(*layer == Layer::Landlock || state.reason().is_empty(), "{layer:?}: {state:?}");
    }
    sandbox
}

fn has_landlock(sandbox: &Sandbox) -> bool {
    sandbox.layers.iter().any(|(layer, state)| *layer == Layer::Landlock && state.is_in_force())
}

/// Landlock does from Linux 6.7 on.
fn restricts_tcp(sandbox: &Sandbox) -> bool {
    has_landlock(sandbox) && !sandbox.layers.iter().any(|(_, state)| state.reason().contains("TCP"))
}

/// Calls the kernel with arguments that do nothing if it takes them.
fn call(number: c_long, args: [c_long; 5]) -> io::Result<c_long> {
    let [a, b, c, d, e] = args;
    // SAFETY: every pointer among the arguments of this file is null or to a static.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, 0 as c_long) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn is_unknown<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENOSYS))
}

/// What is refused by its number: with arguments that the kernel refuses for other reasons, where it would
/// do harm otherwise.
const REFUSED: &[(&str, c_long, [c_long; 5])] = &[
    ("execve", libc::SYS_execve, [0; 5]),
    ("execveat", libc::SYS_execveat, [-1, 0, 0, 0, 0]),
    ("clone3", libc::SYS_clone3, [0; 5]),
    ("ptrace", libc::SYS_ptrace, [libc::PTRACE_CONT as c_long, -1, 0, 0, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, [0, 0, 0, 0, 0]),
    ("process_vm_writev", libc::SYS_process_vm_writev, [0, 0, 0, 0, 0]),
    ("kcmp", libc::SYS_kcmp, [1, 1, 99, 0, 0]),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, [-1, 0, 0, 0, 0]),
    ("kill", libc::SYS_kill, [1, 0, 0, 0, 0]),
    ("init_module", libc::SYS_init_module, [0; 5]),
    ("finit_module", libc::SYS_finit_module, [-1, 0, 0, 0, 0]),
    ("delete_module", libc::SYS_delete_module, [0; 5]),
    ("mount", libc::SYS_mount, [0; 5]),
    ("umount2", libc::SYS_umount2, [0; 5]),
    ("pivot_root", libc::SYS_pivot_root, [0; 5]),
    ("chroot", libc::SYS_chroot, [0; 5]),
    ("unshare", libc::SYS_unshare, [0; 5]),
    ("setns", libc::SYS_setns, [-1, 0, 0, 0, 0]),
    ("setuid", libc::SYS_setresuid, [-1, -1, -1, 0, 0]),
    ("capset", libc::SYS_capset, [0; 5]),
    ("bpf", libc::SYS_bpf, [0; 5]),
    ("perf_event_open", libc::SYS_perf_event_open, [0; 5]),
    ("bind", libc::SYS_bind, [-1, 0, 0, 0, 0]),
    ("listen", libc::SYS_listen, [-1, 0, 0, 0, 0]),
    ("rename", libc::SYS_renameat2, [-1, 0, -1, 0, 0]),
    ("unlink", libc::SYS_unlinkat, [-1, 0, 0, 0, 0]),
    ("chown", libc::SYS_fchownat, [-1, 0, 0, 0, 0]),
    ("mknod", libc::SYS_mknodat, [-1, 0, 0, 0, 0]),
    ("truncate", libc::SYS_truncate, [0; 5]),
    ("clock_settime", libc::SYS_clock_settime, [-1, 0, 0, 0, 0]),
    ("sethostname", libc::SYS_sethostname, [0, -1, 0, 0, 0]),
    ("swapon", libc::SYS_swapon, [0; 5]),
    ("wait4", libc::SYS_wait4, [0; 5]),
];

fn system_calls(_: &Path) {
    let missing = REFUSED.iter().filter(|(_, number, args)| is_unknown(&call(*number, *args)));
    let missing: Vec<&str> = missing.map(|(name, ..)| *name).collect();
    println!("skipped, as this kernel does not have them: {}", missing.join(" "));
    assert!(missing.len() <= 3, "is this process restricted already?");
    apply(&Needs { serving: true, ..Needs::default() });
    for (name, number, args) in REFUSED {
        let result = call(*number, *args);
        assert!(is_unknown(&result), "{name}: {result:?}");
    }
    let executed = Command::new("/bin/sh").args(["-c", "true"]).exec();
    assert_eq!(executed.raw_os_error(), Some(libc::ENOSYS));
    assert!(Command::new("/bin/sh").args(["-c", "true"]).status().is_err());
}

/// Each is refused by what it asks for; the same call with other arguments works.
const ARGUMENTS: &[(&str, c_long, [c_long; 5])] = &[
    ("TCP", libc::SYS_socket, [libc::AF_INET as c_long, libc::SOCK_STREAM as c_long, 0, 0, 0]),
    ("UDP", libc::SYS_socket, [libc::AF_INET6 as c_long, libc::SOCK_DGRAM as c_long, 0, 0, 0]),
    ("raw", libc::SYS_socket, [libc::AF_INET as c_long, libc::SOCK_RAW as c_long, 1, 0, 0]),
    ("packet", libc::SYS_socket, [libc::AF_PACKET as c_long, libc::SOCK_RAW as c_long, 0, 0, 0]),
    ("netlink", libc::SYS_socket, [libc::AF_NETLINK as c_long, libc::SOCK_RAW as c_long, 0, 0, 0]),
    ("executable memory", libc::SYS_mmap, [0, 4096, (libc::PROT_READ | libc::PROT_EXEC) as c_long, MAP, -1]),
    ("typing", libc::SYS_ioctl, [-1, libc::TIOCSTI as c_long, 0, 0, 0]),
    ("a new limit", libc::SYS_prlimit64, [0, libc::RLIMIT_CORE as c_long, 1, 0, 0]),
    ("no_new_privs", libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as c_long, 1, 0, 0, 0]),
    ("securebits", libc::SYS_prctl, [libc::PR_GET_SECUREBITS as c_long, 0, 0, 0, 0]),
    ("another's thread", libc::SYS_tgkill, [1, 1, 0, 0, 0]),
];
const MAP: c_long = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as c_long;

fn arguments(_: &Path) {
    for (name, number, args) in ARGUMENTS {
        assert!(!is_unknown(&call(*number, *args)), "this kernel has no {name}");
    }
    apply(&Needs { serving: true, ..Needs::default() });
    for (name, number, args) in ARGUMENTS {
        let result = call(*number, *args);
        assert!(is_unknown(&result), "{name}: {result:?}");
    }
    assert!(TcpListener::bind("127.0.0.1:0").is_err() && UdpSocket::bind("127.0.0.1:0").is_err());
    // SAFETY: in a child nothing but the exit is called, and there is no other thread.
    assert_eq!(unsafe { libc::fork() }, -1, "a process was begun");
    UnixDatagram::unbound().unwrap();
    call(libc::SYS_mmap, [0, 4096, libc::PROT_READ as c_long, MAP, -1]).unwrap();
    call(libc::SYS_prlimit64, [0, libc::RLIMIT_CORE as c_long, 0, 0, 0]).unwrap();
    call(libc::SYS_tgkill, [std::process::id().into(), std::process::id().into(), 0, 0, 0]).unwrap();
}

fn files(dir: &Path) {
    let (named, other) = (dir.join("named"), dir.join("other"));
    for folder in [&named, &other] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("x"), "1").unwrap();
    }
    let held = File::create(other.join("held")).unwrap();
    let sandbox = apply(&Needs { readable: vec![named.clone()], ..Needs::default() });
    for folder in [&named, &other] {
        cannot_write(folder);
    }
    assert_eq!(fs::read_to_string(named.join("x")).unwrap(), "1");
    assert!(fs::read_to_string("/proc/self/status").is_ok() && fs::read_dir("/sys/kernel").is_ok());
    // What is open stays so.
    held.set_len(1).unwrap();
    if !has_landlock(&sandbox) {
        println!("skipped in part: this kernel has no Landlock, and every file can be read");
        return;
    }
    for path in [&other.join("x"), Path::new("/etc/passwd"), Path::new("/dev/null")] {
        let error = fs::read(path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{}", path.display());
    }
}

/// Neither the file `x` in `folder` nor a new one.
fn cannot_write(folder: &Path) {
    let x = folder.join("x");
    assert!(File::create(folder.join("new")).is_err());
    assert!(OpenOptions::new().write(true).open(&x).is_err());
    assert!(OpenOptions::new().append(true).open(&x).is_err());
    assert!(OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(&x).is_err());
    assert!(fs::rename(&x, folder.join("y")).is_err() && fs::remove_file(&x).is_err());
    assert!(fs::create_dir(folder.join("new")).is_err() && fs::hard_link(&x, folder.join("y")).is_err());
    assert!(fs::set_permissions(&x, fs::metadata(&x).unwrap().permissions()).is_err());
    assert_eq!(fs::metadata(&x).unwrap().len(), 1);
}

fn text_file(dir: &Path) {
    let (folder, other) = (dir.join("folder"), dir.join("other"));
    for folder in [&folder, &other] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("x"), "1").unwrap();
    }
    let path = folder.join("x");
    let sandbox = apply(&Needs { written: Some(path.clone()), ..Needs::default() });
    fs::write(folder.join("draft"), "2").unwrap();
    fs::rename(folder.join("draft"), &path).unwrap();
    fs::set_permissions(&path, fs::metadata(&path).unwrap().permissions()).unwrap();
    fs::remove_file(&path).unwrap();
    if !has_landlock(&sandbox) {
        println!("skipped in part: this kernel has no Landlock, and every file can be written");
        return;
    }
    assert!(fs::write(other.join("new"), "2").is_err() && fs::write(other.join("x"), "2").is_err());
    assert!(fs::remove_file(other.join("x")).is_err() && fs::read(other.join("x")).is_err());
    assert!(fs::create_dir(folder.join("new")).is_err());
}

fn opening_for_writing(dir: &Path) {
    let path = dir.join("x");
    fs::write(&path, "1").unwrap();
    // Reading descriptors leaves Landlock out.
    let sandbox = apply(&Needs { descriptors: true, ..Needs::default() });
    assert!(!has_landlock(&sandbox));
    let unknown = |options: &mut OpenOptions| is_unknown(&options.open(&path));
    assert!(unknown(OpenOptions::new().write(true)) && unknown(OpenOptions::new().append(true)));
    assert!(unknown(OpenOptions::new().read(true).write(true).create(true)));
    assert!(unknown(OpenOptions::new().read(true).custom_flags(libc::O_TRUNC)));
    assert_eq!(fs::read_to_string(&path).unwrap(), "1");
}

fn capabilities_are_gone(_: &Path) {
    let before = capabilities(None).unwrap();
    let sandbox = apply(&Needs { serving: true, ..Needs::default() });
    assert_eq!(sandbox.capabilities, [""; 0]);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1", "2"));
    if before.effective.contains(CapabilitySet::SETPCAP) {
        assert_eq!(field("CapBnd:"), "0000000000000000");
    } else {
        println!("skipped in part: run it as root to see the bounding set emptied");
    }
    assert!(set_capabilities(None, before).is_err());
}

fn kept_capabilities(dir: &Path) {
    if !capabilities(None).unwrap().permitted.contains(CapabilitySet::SYS_ADMIN) {
        println!("skipped: run it as root");
        return;
    }
    let foreign = dir.join("foreign");
    fs::create_dir(&foreign).unwrap();
    std::os::unix::fs::chown(&foreign, Some(65_534), Some(65_534)).unwrap();
    let attaching = Needs { counters: true, attaching: true, ..Needs::default() };
    let cases = [
        (attaching.clone(), "CAP_DAC_READ_SEARCH CAP_SYS_ADMIN CAP_SYSLOG"),
        (Needs { counters: true, ..Needs::default() }, "CAP_DAC_READ_SEARCH CAP_BPF"),
        (
            Needs { counters: true, child: Some(1), ..Needs::default() },
            "CAP_DAC_READ_SEARCH CAP_KILL CAP_BPF",
        ),
        (Needs { descriptors: true, ..Needs::default() }, "CAP_DAC_READ_SEARCH CAP_SYS_PTRACE"),
        (Needs { written: Some(dir.join("x")), ..Needs::default() }, ""),
        (Needs { written: Some(foreign.join("x")), ..Needs::default() }, "CAP_DAC_OVERRIDE"),
    ];
    for (needs, expected) in cases {
        let sandbox = in_child(|| apply(&needs).capabilities.join(" "));
        assert_eq!(sandbox, expected, "{needs:?}");
    }
}

/// What `work` says in a process of its own.
fn in_child(work: impl FnOnce() -> String) -> String {
    let (reader, writer) = io::pipe().unwrap();
    // SAFETY: there is no other thread.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let text = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or("panic".to_owned());
        _ = io::Write::write_all(&mut &writer, text.as_bytes());
        std::process::exit(0);
    }
    drop(writer);
    let text = io::read_to_string(reader).unwrap();
    // SAFETY: the child is ours.
    assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
    text
}

fn threads(_: &Path) {
    apply(&Needs { serving: true, ..Needs::default() });
    let attempts = || {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let is_bare = ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
            .iter()
            .all(|line| status.contains(line));
        (is_bare, is_unknown(&call(libc::SYS_execve, [0; 5])))
    };
    assert_eq!(
        thread::Builder::new().name("named".into()).spawn(attempts).unwrap().join().unwrap(),
        (true, true)
    );
}

fn serving(_: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    apply(&Needs { serving: true, ..Needs::default() });
    let (mut served, _) = listener.accept().unwrap();
    io::Write::write_all(&mut served, b"x").unwrap();
    drop(served);
    assert_eq!(io::read_to_string(&client).unwrap(), "x");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let slept = runtime.block_on(async {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        tokio::task::spawn_blocking(|| 7).await.unwrap()
    });
    assert_eq!(slept, 7);
    // A panic in a thread is told and survived as before.
    assert!(thread::spawn(|| panic!("expected")).join().is_err());
}

fn in_two_steps(dir: &Path) {
    let file = dir.join("x");
    fs::write(&file, "1").unwrap();
    let first = Needs { serving: true, binding: true, readable: vec!["/".into()], ..Needs::default() };
    let first = apply(&first);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "1");
    cannot_write(dir);
    assert!(is_unknown(&call(libc::SYS_execve, [0; 5])));
    assert!(!restricts_tcp(&first) || TcpStream::connect(listener.local_addr().unwrap()).is_err());
    let second = apply(&Needs { serving: true, ..Needs::default() });
    assert_eq!(second.capabilities, [""; 0]);
    assert!(TcpListener::bind("127.0.0.1:0").is_err());
    assert!(is_unknown(&call(libc::SYS_capset, [0; 5])));
    assert!(!has_landlock(&second) || fs::read(&file).is_err());
}

fn child(_: &Path) {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let send = |pid: u32, signal: i32| call(libc::SYS_kill, [pid.into(), signal.into(), 0, 0, 0]);
    let parent = std::os::unix::process::parent_id();
    send(parent, 0).unwrap();
    apply(&Needs { child: Some(child.id()), ..Needs::default() });
    assert!(is_unknown(&send(parent, 0)));
    send(child.id(), libc::SIGTERM).unwrap();
    assert!(!child.wait().unwrap().success());
}

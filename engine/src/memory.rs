//! How much memory this process may use: that of the machine, or less where a control group says so.

use std::fs;
use std::path::Path;

/// Returns the number of bytes, or nothing where the system does not tell.
pub(crate) fn available_bytes() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total(&text));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    machine.into_iter().chain(limits(&groups, &read)).min()
}

/// Returns `MemTotal` of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Returns the limits of the control groups that `/proc/self/cgroup` names, and of those they lie in.
fn limits(groups: &str, read: &dyn Fn(&Path) -> Option<String>) -> Vec<u64> {
    let mut found = Vec::new();
    for line in groups.lines() {
        // `0::/path` of version 2, `5:memory:/path` of version 1.
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let folder = Path::new(root).join(path.trim_start_matches('/'));
        // `max`, for no limit, is not a number.
        let limit = |folder: &Path| read(&folder.join(file))?.trim().parse::<u64>().ok();
        found.extend(folder.ancestors().take_while(|folder| folder.starts_with(root)).filter_map(limit));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_memory() {
        assert!(cfg!(not(target_os = "linux")) || available_bytes() > Some(1 << 20));
    }

    #[test]
    fn the_total_is_read_in_kilobytes() {
        assert_eq!(total("MemTotal:       16315408 kB\nMemFree: 1 kB\n"), Some(16_315_408 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn limits_of_a_group_and_of_those_above_it_are_found() {
        let read = |path: &Path| {
            let text = match path.to_str()? {
                "/sys/fs/cgroup/user/job/memory.max" => "max",
                "/sys/fs/cgroup/user/memory.max" => "4096\n",
                "/sys/fs/cgroup/memory/job/memory.limit_in_bytes" => "8192",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(limits("0::/user/job\n", &read), [4096]);
        assert_eq!(limits("4:cpu:/job\n5:memory,x:/job\n", &read), [8192]);
        assert_eq!(limits("", &read), [0; 0]);
    }
}

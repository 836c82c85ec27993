# What only Android says of itself, one "key: value" a line; what cannot be read is left out. POSIX sh.
# Android's C library has no \| in basic regular expressions: alternatives are written for sed -E.
say() { [ -n "$2" ] && printf '%s: %s\n' "$1" "$2"; }
prop() { getprop "$1" 2>/dev/null; }

say maker "$(prop ro.product.manufacturer)"
say model "$(prop ro.product.model)"
say soc-maker "$(prop ro.soc.manufacturer)"
say soc "$(prop ro.soc.model)"
say board "$(prop ro.board.platform)"
say release "$(prop ro.build.version.release)"
say sdk "$(prop ro.build.version.sdk)"
say emulator "$(prop ro.boot.qemu) $(prop ro.kernel.qemu) $(prop ro.hardware)"
say abi "$(prop ro.product.cpu.abi)"
say kernel "$(uname -r 2>/dev/null)"
for policy in /sys/devices/system/cpu/cpufreq/policy*; do
    [ -r "$policy/related_cpus" ] || continue
    say cluster "$(cat "$policy/cpuinfo_max_freq" 2>/dev/null) $(cat "$policy/scaling_governor" 2>/dev/null || echo -) $(cat "$policy/related_cpus")"
done
for zone in /sys/class/thermal/thermal_zone*; do
    case "$(cat "$zone/type" 2>/dev/null)" in [Bb]attery*) say zone "$(cat "$zone/temp" 2>/dev/null)" ;; esac
done
if command -v dumpsys >/dev/null 2>&1; then
    dumpsys battery 2>/dev/null | sed -n -E 's/^ *(level|temperature|AC powered|USB powered|Wireless powered): */battery \1: /p'
    dumpsys thermalservice 2>/dev/null | sed -n 's/^ *Thermal Status: */thermal: /p' | sed -n 1p
    dumpsys power 2>/dev/null | sed -n 's/^ *mWakefulness=/screen: /p' | sed -n 1p
    say saving "$(settings get global low_power 2>/dev/null)"
fi
echo 'end: android'

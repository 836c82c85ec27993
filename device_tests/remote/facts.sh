# What this device says of itself, one "key: value" a line; what cannot be read is left out. POSIX sh.
say() { [ -n "$2" ] && printf '%s: %s\n' "$1" "$2"; }
first() { for file; do [ -r "$file" ] && tr -d '\0' <"$file" 2>/dev/null && return; done; }
cpu=/sys/devices/system/cpu

say system "$(uname -s 2>/dev/null)"
say 'system version' "$(uname -r 2>/dev/null)"
say architecture "$(uname -m 2>/dev/null)"
if [ "$(uname -s)" = Darwin ]; then
    say processor "$(sysctl -n machdep.cpu.brand_string 2>/dev/null)"
    say model "$(sysctl -n hw.model 2>/dev/null)"
    say logical "$(sysctl -n hw.logicalcpu 2>/dev/null)"
    say physical "$(sysctl -n hw.physicalcpu 2>/dev/null)"
    say memory-bytes "$(sysctl -n hw.memsize 2>/dev/null)"
    say load "$(sysctl -n vm.loadavg 2>/dev/null)"
    say instructions "$(sysctl hw.optional.arm 2>/dev/null | sed -n 's/^hw\.optional\.arm\.FEAT_\([A-Za-z0-9_]*\): 1$/\1/p' | tr '\n' ' ')"
else
    say processor "$(sed -n -e 's/^model name[[:space:]]*: //p' -e 's/^Hardware[[:space:]]*: //p' /proc/cpuinfo 2>/dev/null | sed -n 1p)"
    say model "$(getprop ro.product.model 2>/dev/null || first /proc/device-tree/model /sys/class/dmi/id/product_name)"
    say logical "$(grep -c '^processor' /proc/cpuinfo 2>/dev/null)"
    say physical "$(cat $cpu/cpu[0-9]*/topology/thread_siblings_list 2>/dev/null | sort -u | grep -c .)"
    say memory-kib "$(sed -n 's/^MemTotal:[[:space:]]*\([0-9]*\).*/\1/p' /proc/meminfo 2>/dev/null)"
    say load "$(first /proc/loadavg)"
    say instructions "$(sed -n -e 's/^Features[[:space:]]*: //p' -e 's/^flags[[:space:]]*: //p' /proc/cpuinfo 2>/dev/null | sed -n 1p)"
    say governor "$(cat $cpu/cpu[0-9]*/cpufreq/scaling_governor 2>/dev/null | sort -u | tr '\n' ' ')"
    for zone in /sys/class/thermal/thermal_zone*; do
        say "zone $(first "$zone/type")" "$(first "$zone/temp")"
    done
fi
say free-kib "$(df -Pk . 2>/dev/null | sed -n '$s/.*[[:space:]]\([0-9][0-9]*\)[[:space:]][[:space:]]*[0-9][0-9]*%.*/\1/p')"
say python "$(python3 -V 2>/dev/null | sed -n 's/^Python //p')"
echo 'end: facts'

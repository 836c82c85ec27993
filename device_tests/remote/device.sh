# edgekit's side on a device: a store of files by their SHA-256, a lock, and jobs that end when nobody asks for them any more.
#
#     sh store/SHA NONCE VERB WORD…      in edgekit's folder; POSIX sh, no more
#
# What it says stands between "edgekit NONCE begin" and "edgekit NONCE ok", or "edgekit NONCE refused: WHY". A reader that does
# not see the last line knows that the link was cut, whatever the link's exit status says. Every verb may be repeated.
#
#     store/SHA, store/SHA.part   files by content; one that is being sent
#     locks/N                     generation N of the lock; the highest counts: token, who, beat.N; released
#     jobs/KEY                    plan, returns, work/; boot, pid, group, beat.N, log, why, digests, and last of all: done
LC_ALL=C
export LC_ALL
umask 077
nonce=$1 verb=$2
shift 2

say() { printf '%s\n' "$*"; }
fine() { say "edgekit $nonce ok"; exit 0; }
refuse() { say "edgekit $nonce refused: $*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
text() { [ -f "$1" ] && { read -r line <"$1" || :; } 2>/dev/null && printf '%s' "$line"; }
size() { echo $(($(wc -c <"$1"))); }
free_kib() { df -Pk . 2>/dev/null | sed -n '$s/.*[[:space:]]\([0-9][0-9]*\)[[:space:]][[:space:]]*[0-9][0-9]*%.*/\1/p'; }
put() { printf '%s\n' "$2" >"$1.new" && mv -f "$1.new" "$1"; }

# A lease is renewed by a new name, which takes no room on a full disk.
renew() {
    for old in "$1"/beat.*; do
        if [ -e "$old" ]; then
            [ "$old" = "$1/beat.$2" ] || mv -f "$old" "$1/beat.$2"
            return
        fi
    done
    : >"$1/beat.$2"
}

digest() {
    if has sha256sum; then sum=$(sha256sum <"$1")
    elif has shasum; then sum=$(shasum -a 256 <"$1")
    else sum=$(openssl dgst -sha256 -r <"$1"); fi
    say "${sum%% *}"
}

boot() { cat /proc/sys/kernel/random/boot_id 2>/dev/null || sysctl -n kern.bootsessionuuid 2>/dev/null || echo unknown; }

# Become a command in a session of its own: macOS has no setsid, minimal systems have nothing else. For the background only.
detach() {
    if has setsid; then exec setsid "$@"
    elif has perl; then exec perl -e 'use POSIX (); POSIX::setsid() > 0 or die; exec @ARGV' "$@"
    else exec python3 -c 'import os, sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])' "$@"; fi
}

# Whether process $1 was started with word $2; a number may belong to somebody else by now, and what has ended has no words.
serves() {
    [ -n "$1" ] || return 1
    if [ -d /proc/self ]; then grep -q -e "$2" "/proc/$1/cmdline" 2>/dev/null
    else ps -o command= -p "$1" 2>/dev/null | grep -q -e "$2"; fi
}

# Kill a job's whole process group, by the number in file $1, and wait for the end of its leader.
kill_group() {
    group=$(text "$1")
    [ -n "$group" ] || return 0
    if ! serves "$group" "$2" && serves "$group" .; then return 0; fi
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        kill -9 "-$group" 2>/dev/null || return 0
        serves "$group" "$2" || return 0
        sleep 0.1 2>/dev/null || sleep 1
    done
}

end_job() {
    if [ "$(text "jobs/$1/boot")" = "$(boot)" ]; then
        kill_group "jobs/$1/group" "$1"
        kill_group "jobs/$1/pid" "$1"
        kill_group "jobs/$1/group" "$1" # it may have begun only now
    fi
    rm -rf "jobs/$1" 2>/dev/null || { sleep 1; rm -rf "jobs/$1"; }
}

# ---- the lock: whoever makes the next generation's folder holds it, and only one can

latest() {
    top=0
    for place in locks/*; do
        number=${place##*/}
        case $number in *[!0-9]*) continue ;; esac
        [ -d "$place" ] && [ "$number" -gt "$top" ] && top=$number
    done
}

mine() { latest; [ "$(text "locks/$top/token")" = "$1" ] && [ ! -e "locks/$top/released" ]; }

lock() { # TOKEN BEAT STALE WHO: STALE is a generation whose holder was found to be gone
    if mine "$1"; then renew "locks/$top" "$2"; say held; fine; fi
    if [ "$top" = 0 ] || [ -e "locks/$top/released" ] || [ "$top" = "$3" ]; then
        next=$((top + 1))
        if mkdir "locks/$next" 2>/dev/null; then
            if ! { renew "locks/$next" "$2" && put "locks/$next/who" "$4" && put "locks/$next/token" "$1"; }; then
                rm -rf "locks/$next"
                refuse "no room for a lock"
            fi
            latest
            if [ "$top" = "$next" ]; then
                for place in jobs/*; do [ -d "$place" ] && end_job "${place##*/}"; done
                for place in locks/*; do [ "$place" = "locks/$next" ] || rm -rf "$place"; done
                say held
                fine
            fi
            rm -rf "locks/$next" # others were faster by more than one generation
        elif [ ! -d "locks/$next" ]; then
            refuse "no lock can be made: $(mkdir "locks/$next" 2>&1)"
        fi
    fi
    latest
    say "busy $top"
    say "who $(text "locks/$top/who")"
    say "sign $(echo "locks/$top"/beat.*) $(ls -ln store | cksum)" # a file that grows is a sign of life too
}

# ---- the store

have() { # lines "SHA SIZE" on stdin; says which are missing and how much of them is there
    say "free $(free_kib)"
    while read -r sha bytes; do
        if [ -f "store/$sha" ]; then
            [ "$(size "store/$sha")" = "$bytes" ] && continue
            rm -f "store/$sha" # a power cut leaves files empty
        fi
        there=0
        if [ -f "store/$sha.part" ]; then
            there=$(size "store/$sha.part")
            [ "$there" -gt "$bytes" ] && { rm -f "store/$sha.part"; there=0; }
        fi
        say "missing $sha $there"
    done
}

keep() { # lines "SHA" on stdin: files that were sent to their end take their names if they deserve them
    while read -r sha; do
        if [ -f "store/$sha" ] || [ ! -f "store/$sha.part" ]; then continue; fi
        if [ "$(digest "store/$sha.part")" = "$sha" ]; then mv -f "store/$sha.part" "store/$sha"; else rm -f "store/$sha.part"; say "damaged $sha"; fi
    done
}

sweep() { # DAYS
    find store -type f -name '*.part' -mtime +1 -exec rm -f {} +
    find store -type f ! -name "${0##*/}" -mtime "+$1" -exec rm -f {} +
}

# ---- jobs

compose() { # KEY TOKEN; lines "SHA MODE PATH" on stdin
    mine "$2" || { say lost-lock; fine; }
    job=jobs/$1
    if [ -e "$job/started" ]; then fine; fi
    rm -rf "$job"
    mkdir -p "$job/work" || refuse "no room for a job"
    while read -r sha mode path; do
        if [ ! -f "store/$sha" ] || [ "$(digest "store/$sha")" != "$sha" ]; then rm -f "store/$sha"; say "missing $sha 0"; continue; fi
        touch "store/$sha" # used today
        case $path in */*) mkdir -p "$job/${path%/*}" ;; esac
        # a call whose link was cut may still be at work beside this one: what is there already is made anew, or was made by it
        rm -f "$job/$path"
        ln "store/$sha" "$job/$path" 2>/dev/null || cp -f "store/$sha" "$job/$path" 2>/dev/null ||
            [ "$(digest "$job/$path")" = "$sha" ] || refuse "no room: $path cannot be copied"
        chmod "$mode" "$job/$path"
    done
}

start() { # KEY TOKEN LIMIT_S LEASE_S
    mine "$2" || { say lost-lock; fine; }
    job=jobs/$1
    [ -f "$job/plan" ] || { say gone; fine; }
    has setsid || has perl || has python3 || refuse "it has none of setsid, perl and python3, which start a job in a session of its own"
    if mkdir "$job/started" 2>/dev/null; then
        boot >"$job/boot"
        head -c 16384 /dev/zero >"$job/reserve" || refuse "no room for a job"
        detach sh "$0" "$nonce" supervise "$1" "$3" "$4" </dev/null >"$job/supervisor" 2>&1 &
    fi
    naps=0
    while [ "$naps" -lt 100 ] && [ ! -s "$job/pid" ]; do # ten seconds
        if sleep 0.1 2>/dev/null; then naps=$((naps + 1)); else sleep 1; naps=$((naps + 10)); fi
    done
}

supervise() { # KEY LIMIT_S LEASE_S
    job=jobs/$1
    put "$job/pid" $$ || exit 1
    detach sh "$0" "$nonce" work "$1" </dev/null >"$job/log" 2>&1 &
    child=$!
    watch "$1" "$2" "$3" &
    wait "$child"
    code=$?
    kill_group "$job/group" "$1" # what it left running
    rm -f "$job/reserve"         # on a full disk, this is where the next lines go
    while read -r name; do
        file=$job/work/$name
        [ -f "$file" ] && [ ! -h "$file" ] && say "$(digest "$file") $(size "$file") $name"
    done <"$job/returns" >"$job/digests"
    put "$job/done" "$code $(text "$job/why")"
    kill -9 -$$ # with the watch
}

# End the job when it takes too long, or when nobody has renewed the lease. Counted in naps, which no change of the clock disturbs.
watch() {
    ran=0 silent=0 last=
    while sleep 1; do
        ran=$((ran + 1))
        for now in "jobs/$1"/beat.*; do :; done
        if [ "$now" = "$last" ]; then silent=$((silent + 1)); else silent=0 last=$now; fi
        if [ "$silent" -ge "$3" ]; then why=abandoned; elif [ "$ran" -ge "$2" ]; then why=overtime; else continue; fi
        put "jobs/$1/why" "$why"
        kill_group "jobs/$1/group" "$1"
    done
}

work() { # KEY
    put "jobs/$1/group" $$ || exit 1
    cd "jobs/$1/work" || exit 1
    . ../plan
}

poll() { # KEY TOKEN BEAT
    mine "$2" || { say 'state lost-lock'; fine; }
    job=jobs/$1
    renew "locks/$top" "$3"
    [ -d "$job" ] || { say 'state gone'; fine; }
    renew "$job" "$3"
    if [ ! -e "$job/done" ] && [ -e "$job/started" ]; then
        if [ "$(text "$job/boot")" != "$(boot)" ]; then say 'state rebooted'; fine; fi
        if serves "$(text "$job/pid")" "$1"; then say 'state running'; fine; fi
    fi
    if [ -e "$job/done" ]; then
        say "state done $(text "$job/done")"
        say "free $(free_kib)"
        sed 's/^/file /' "$job/digests"
    else
        say 'state gone'
    fi
}

beat() { # TOKEN BEAT SHA: renew the lock while a file travels, and say how far it is
    if mine "$1"; then renew "locks/$top" "$2"; fi
    if [ -n "$3" ] && [ -f "store/$3.part" ]; then say "there $(size "store/$3.part")"; fi
}

case $verb in
    supervise | work)
        "$verb" "$@"
        exit
        ;;
esac
say "edgekit $nonce begin"
{ [ -d store ] && [ -d jobs ] && [ -d locks ]; } || mkdir -p store jobs locks || refuse "its folder cannot be written: $(mkdir -p store jobs locks 2>&1)"
case $verb in
    init) [ "$(digest "$0")" = "${0##*/}" ] || refuse "$0 is not what was sent" ;;
    lock | have | keep | sweep | compose | start | poll | beat) "$verb" "$@" ;;
    release) if mine "$1"; then : >"locks/$top/released"; fi ;;
    log)
        tail -c "$2" "jobs/$1/log"
        echo
        ;;
    end) end_job "$1" ;;
    *) refuse "unknown verb $verb" ;;
esac
fine

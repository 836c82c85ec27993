# Start edgekit's agent with the Python of the profile, or say what is missing there: sh run_python.sh PYTHON VERSION
python=$1 wanted=$2
tell() {
    printf '%s\n' "$@" >agent.txt
    : >result.json
    : >outputs.npz
    exit 0
}
command -v "$python" >/dev/null 2>&1 || tell no-python
found=$("$python" -c '
import sys
print("%d.%d" % sys.version_info[:2])
sys.version_info < (3, 11) and sys.exit(3)
from importlib import metadata
print(metadata.version("edgekit"))' 2>/dev/null)
case $? in
    0) ;;
    3) tell old-python "$found" ;;
    *) tell no-edgekit ;;
esac
found=${found##*
}
[ "$found" = "$wanted" ] || tell other-edgekit "$found"
exec "$python" -m edgekit.device_tests.remote.on_device

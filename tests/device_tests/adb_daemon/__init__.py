"""edgekit's test daemon for the ``adb`` client. It is NO Android device, and says so in ``ro.product.model``.

Debian packages no ``adbd``; this one speaks enough of the device's side of the protocol, on loopback, for the real ``adb``
client to be tested against, with faults that a phone has only by accident.

========================= =====================================================================================
file                      holds
========================= =====================================================================================
:mod:`.messages`          the transport's messages
:mod:`.streams`           one stream of a connection, with the protocol's flow control
:mod:`.processes`         services ``shell:``, ``shell,v2:`` and ``exec:``
:mod:`.sync`              service ``sync:``
:mod:`.daemon`            connections, authentication, faults, and the control channel
:mod:`.device`            the test's side: the "device" the daemon runs on, and an ``adb`` server of the test's own
========================= =====================================================================================

The daemon runs in a sandbox (bubblewrap) with a process space, a file system and a boot id of its own: MirBSD's shell as
``sh``, toybox as everything else, as on Android; killing the sandbox kills every process in it, as a power cut does.

After the protocol's description in AOSP, packages/modules/adb: ``protocol.txt``, ``SYNC.TXT``, ``SERVICES.TXT``,
``shell_protocol.h`` and ``file_sync_protocol.h``.
"""

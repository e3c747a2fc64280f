"""firstrun.sh and cmdline.txt, by which Raspberry Pi OS up to Bookworm is told what it shall become.

The tools of the image itself do what they can (userconf-pi; imager_custom of raspberrypi-sys-mods), as when Raspberry
Pi Imager writes a card; where an image has not got them, plain files are written.
"""

from __future__ import annotations

import re
import shlex

from .card import FOLDER, GROUPS, Card
from .cloud_init import hide_boot_partition

# Bookworm's initramfs looks for exactly this path, and makes it /boot/firmware (rpi-imager issue 637).
_PARAMETERS = (
    "systemd.run=/boot/firstrun.sh",
    "systemd.run_success_action=reboot",
    "systemd.unit=kernel-command-line.target",
)
_OURS = re.compile(r"(?:systemd\.(?:run|run_success_action|unit)|cfg80211\.ieee80211_regdom)=\S*")


def command_line(before: str, country: str = "") -> str:
    """cmdline.txt with the order to run firstrun.sh; one line, as the firmware wants it."""
    words = [word for word in before.split() if not _OURS.fullmatch(word)]
    if country:
        words.append(f"cfg80211.ieee80211_regdom={country}")
    return " ".join([*words, *_PARAMETERS]) + "\n"


def script(card: Card) -> str:
    parts = [_HEAD, _host(card), _user(card), _access(card)]
    parts += [_wifi(card), _language(card), _kernel(card), _tail()]
    return "\n".join(part for part in parts if part)


_HEAD = """\
#!/bin/sh
# Made by `farkernel image raspberrypi`: run once, at the first start, by root.  What went wrong is in the log.
exec >>/var/log/farkernel-firstrun.log 2>&1
here=$(cd "$(dirname "$0")" && pwd)
custom=/usr/lib/raspberrypi-sys-mods/imager_custom
"""


def _host(card: Card) -> str:
    return f"""\
host={shlex.quote(card.host)}
if [ -x "$custom" ]; then
    "$custom" set_hostname "$host"
else
    echo "$host" >/etc/hostname
    touch /etc/hosts
    sed -i '/^127\\.0\\.1\\.1[[:space:]]/d' /etc/hosts
    printf '127.0.1.1\\t%s\\n' "$host" >>/etc/hosts
fi
"""


def _user(card: Card) -> str:
    # A password that nothing matches; the account itself is not locked, so that keys are taken.
    return f"""\
user={shlex.quote(card.user)}
hash={shlex.quote(card.password or "*")}
groups={shlex.quote(",".join(GROUPS))}
if [ -x /usr/lib/userconf-pi/userconf ]; then
    /usr/lib/userconf-pi/userconf "$user" "$hash"
else
    id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
    printf '%s:%s\\n' "$user" "$hash" | chpasswd -e
    for group in $(echo "$groups" | tr , ' '); do
        getent group "$group" >/dev/null && usermod -a -G "$group" "$user"
    done
fi
usermod -c {shlex.quote(card.full_name)} "$user"
home=$(getent passwd "$user" | cut -d: -f6)
rm -f /etc/sudoers.d/010_pi-nopasswd
{_sudo(card)}"""


def _sudo(card: Card) -> str:
    if not card.sudo:
        return 'gpasswd -d "$user" sudo\n'
    return """\
mkdir -p /etc/sudoers.d
printf '%s ALL=(ALL) NOPASSWD:ALL\\n' "$user" >/etc/sudoers.d/010_farkernel
chmod 440 /etc/sudoers.d/010_farkernel
"""


def _access(card: Card) -> str:
    lines = []
    if card.keys:
        keys = " ".join(shlex.quote(key) for key in card.keys)
        lines += [
            'install -d -o "$user" -g "$(id -g "$user")" -m 700 "$home/.ssh"',
            f"printf '%s\\n' {keys} >\"$home/.ssh/authorized_keys\"",
            'chown "$user:$(id -g "$user")" "$home/.ssh/authorized_keys"',
            'chmod 600 "$home/.ssh/authorized_keys"',
            "mkdir -p /etc/ssh/sshd_config.d",
            "echo 'PasswordAuthentication no' >/etc/ssh/sshd_config.d/10-farkernel.conf",
        ]
    if card.host_key is not None:
        lines += [
            "rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub",
            f"(umask 077; printf '%s' {shlex.quote(card.host_key.private)} >/etc/ssh/ssh_host_ed25519_key)",
            f"printf '%s\\n' {shlex.quote(card.host_key.public)} >/etc/ssh/ssh_host_ed25519_key.pub",
            # It would make others at the next start.
            "systemctl disable regenerate_ssh_host_keys",
        ]
    return "\n".join([*lines, "systemctl enable ssh", ""])


def _wifi(card: Card) -> str:
    if card.wifi is None:
        return "rfkill unblock wifi\n" if card.country else ""
    name, key = card.wifi.name, card.wifi.key
    words = [*(["-h"] if card.wifi.hidden else []), name, key, card.country]
    security = f"[wifi-security]\nkey-mgmt=wpa-psk\npsk={key}\n\n" if key else ""
    # As numbers: a keyfile has ways of its own with blanks, semicolons and backslashes (nm-settings-keyfile(5)).
    octets = "".join(f"{octet};" for octet in name.encode())
    hidden = "hidden=true\n" if card.wifi.hidden else ""
    return f"""\
if [ -x "$custom" ]; then
    "$custom" set_wlan {" ".join(shlex.quote(word) for word in words)}
else
    mkdir -p /etc/NetworkManager/system-connections
    (umask 077; cat >/etc/NetworkManager/system-connections/farkernel.nmconnection) <<'FARKERNEL_END'
[connection]
id=farkernel
type=wifi

[wifi]
mode=infrastructure
ssid={octets}
{hidden}
{security}[ipv4]
method=auto

[ipv6]
method=auto
FARKERNEL_END
fi
rfkill unblock wifi
"""


def _language(card: Card) -> str:
    lines = []
    if card.locale:
        lines.append(f"""\
locale={shlex.quote(card.locale)}
grep -qs "^$locale " /etc/locale.gen || echo "$locale UTF-8" >>/etc/locale.gen
locale-gen
printf 'LANG=%s\\n' "$locale" >/etc/default/locale
""")
    if card.timezone:
        lines.append(f"""\
zone={shlex.quote(card.timezone)}
if [ -e "/usr/share/zoneinfo/$zone" ]; then
    ln -sf "/usr/share/zoneinfo/$zone" /etc/localtime
    echo "$zone" >/etc/timezone
fi
""")
    if card.keyboard:
        lines.append(f"""\
printf 'XKBMODEL="pc105"\\nXKBLAYOUT="%s"\\nXKBVARIANT=""\\nXKBOPTIONS=""\\nBACKSPACE="guess"\\n' \\
    {shlex.quote(card.keyboard)} >/etc/default/keyboard
""")
    return "".join(lines)


def _kernel(card: Card) -> str:
    return f'sh "$here/{FOLDER}/prepare.sh"\n' if card.kernel is not None else ""


def _tail() -> str:
    return f"""\
rm -f "$here/firstrun.sh"
sed -i -E 's/ ?systemd\\.(run|run_success_action|unit)=[^ ]*//g' "$here/cmdline.txt"
{hide_boot_partition()}
sync
exit 0
"""

#!/bin/sh
# The firewall that "llamagate setup" makes, to be read, and to be run by hand:
#
#   sudo sh rules.sh          SSH on port 22
#   sudo sh rules.sh 2222     SSH on another port, or on several
#
# The order counts twice. What is allowed must come before what is denied, since
# UFW takes the first rule that fits. And SSH comes before `enable`, since you may
# be logged in by it.
#
# UFW keeps the internet and the LAN out. It does not filter the tailnet:
# tailscaled puts a rule ahead of UFW's that lets every device of the tailnet
# through. Those are held off by what listens where: Ollama and Open WebUI on
# 127.0.0.1 alone, and on the tailnet's address a gate that asks for a key.
set -eu
[ $# -gt 0 ] || set -- 22

ufw default deny incoming

for port; do
	ufw allow "$port/tcp"
done

# On the interface and not "from 100.64.0.0/10": a neighbour on the LAN can forge
# a source address, but not the interface that its packets come in by.
ufw allow in on tailscale0 to any port 11434 proto tcp
ufw allow in on tailscale0 to any port 443 proto tcp

# Tailscale's own traffic between devices. Without it they meet by way of relays.
ufw allow 41641/udp

# Denied by default already. Written down, so that "ufw status" shows that they
# were thought of: Ollama, and Open WebUI with and without Docker.
for port in 11434 3000 8080; do
	case " $* " in *" $port "*) continue ;; esac
	ufw deny "$port"
done

ufw --force enable

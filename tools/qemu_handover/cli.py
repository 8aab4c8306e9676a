# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""qemu-handover: options, and what is printed."""

import argparse
import json
import signal
import sys
from typing import Any, NoReturn

from . import capture, direct, ends, migrate
from .ends import Link
from .machine import Failure, Libvirt
from .report import DONE, FAILED, Report

DESCRIPTION = """\
Migrates a guest so that no packet for it is lost, and captures a guest's packets, with vhost, too.
Its QEMU has to be one with the patch series that this program comes with."""
STATUSES = """\
exit status: 0 done; 1 failed, the guest goes on where it was; 2 a wrong option;
3 migrated, but the hand-over was not confirmed; 4 nobody knows where the guest runs"""
INSECURE = """\
there are no certificates for QEMU in {}: without them, who can watch
the network sees the guest's packets, and a program on the destination's host could take its QEMU's
place. Either install certificates (qemu-handover(1) tells how), or use --socket, or say
--insecure."""


def _interrupt(*_: Any) -> NoReturn:
    """Once; what is removed afterwards is not to be interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _link(args: argparse.Namespace) -> Link:
    if args.socket:
        return Link(args.source_host, path=args.socket)
    tls = "" if args.insecure else args.tls_dir or ends.find_pki()
    if not tls and not args.insecure:
        raise Failure(INSECURE.format(" or ".join(ends.PKI)))
    return Link(args.source_host, tuple(args.peer), tls)


def _migrate(args: argparse.Namespace) -> int:
    report: Report
    if args.qmp:
        if args.domain or args.options or not (args.dest_qmp and args.uri):
            raise Failure("--qmp goes with --dest-qmp and --uri, and without a domain")
        report = direct.migrate(args.qmp, args.dest_qmp, args.uri, _link(args), not args.json)
    else:
        if not args.destination:
            raise Failure("say which domain, and where to: DOMAIN DEST-URI")
        options = list(args.options) + (["--dname", args.dname] if args.dname else [])
        order = migrate.Order(args.domain, args.destination, args.connect, options, args.xml or "",
                              args.dname or "", _link(args), not args.json)
        report = migrate.Migration(order).run()
    if args.json:
        print(json.dumps(report.as_json(), indent=1))
    else:
        print(report.text)
        if report.error:
            print(f"qemu-handover: {report.error}", file=sys.stderr)
    return report.status


def _capture(args: argparse.Namespace) -> int:
    result = capture.run(capture.Order(args.domain, args.interface, args.write, args.connect,
                                       args.snaplen, args.filter or "", args.seconds))
    if args.json:
        print(json.dumps(result), file=sys.stderr if args.write == "-" else sys.stdout)
    elif result["packets"] is None:
        print("qemu-handover: the guest has gone", file=sys.stderr)
    else:
        print(f"qemu-handover: {result['packets']} packets, {result['lost']} lost",
              file=sys.stderr)
    return DONE


def _status(args: argparse.Namespace) -> int:
    machine = Libvirt(args.connect).machine(args.domain)
    found = machine.redirectors()
    added = machine.ours(_of_tool)
    if args.json:
        print(json.dumps({"domain": args.domain, "redirectors": found, "added": added}, indent=1))
        return DONE
    print(f"{args.domain}: {len(found)} redirectors"
          + (f"; added by this program: {', '.join(added)}" if added else ""))
    for item in found:
        print(f"{item['id']}: on {item['netdev']}, {item['phase']}")
        for end in ("input", "output"):
            stats = item[end]["stats"]
            print(f"  {end}: {item[end]['type']} {item[end].get('name', '')} "
                  f"({item[end]['state']}): {stats['packets']} packets, {stats['lost']} lost, "
                  f"{stats['errors']} errors, {stats['queued']} queued")
    return DONE


def _clean(args: argparse.Namespace) -> int:
    machine = Libvirt(args.connect).machine(args.domain)
    if machine.dom.jobInfo()[0] != machine.host.api.VIR_DOMAIN_JOB_NONE:
        raise Failure(f"'{args.domain}' is being migrated")
    gone = machine.clean(lambda ident: ends.ours(ident) or capture.abandoned(ident))
    print(json.dumps({"removed": gone}) if args.json else
          f"removed: {', '.join(gone)}" if gone else "nothing was left over")
    return DONE


def _of_tool(ident: str) -> bool:
    return ends.ours(ident) or ident.startswith(capture.PREFIX)


def parser() -> argparse.ArgumentParser:
    """Abbreviations would be taken for virsh's options, and the other way round."""
    top = argparse.ArgumentParser("qemu-handover", description=DESCRIPTION, epilog=STATUSES,
                                  allow_abbrev=False,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("-c", "--connect", metavar="URI", help="the source's libvirt")
    top.add_argument("--json", action="store_true", help="print JSON")
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, does: Any, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.set_defaults(does=does)
        return made

    move = command("migrate", _migrate, "migrate a running guest; no packet for it is lost. "
                   "Options that are not listed here are virsh migrate's, and are passed on.")
    move.add_argument("domain", nargs="?", metavar="DOMAIN")
    move.add_argument("destination", nargs="?", metavar="DEST-URI")
    move.add_argument("--source-host", default="", metavar="NAME",
                      help="by which the destination reaches this host, and which this host's "
                      "certificate has (default: this host's name)")
    move.add_argument("--peer", action="append", default=[], metavar="NAME",
                      help="common name of the destination's certificate; with --insecure, its "
                      "address (default: its host name, or the one in DEST-URI)")
    move.add_argument("--tls-dir", metavar="DIR", help="with certificates, on both hosts "
                      f"(default: {' or '.join(ends.PKI)})")
    move.add_argument("--socket", metavar="PATH", help="of a Unix socket, on both hosts, instead "
                      "of a TCP port with TLS; -INTERFACE is appended")
    move.add_argument("--insecure", action="store_true", help="do without TLS: one connection "
                      "for each interface, from the destination's address")
    move.add_argument("--xml", metavar="FILE", help="the destination's domain (virsh's --xml)")
    move.add_argument("--dname", metavar="NAME", help="its name there (virsh's --dname)")
    move.add_argument("--qmp", metavar="PATH", help="without libvirt: the source's QMP socket")
    move.add_argument("--dest-qmp", metavar="PATH", help="that of the destination, which was "
                      "started with -incoming defer")
    move.add_argument("--uri", help="where the destination takes the migration, as tcp:HOST:PORT")

    watch = command("capture", _capture, "write a running guest's packets to a pcap file, until "
                    "interrupted")
    watch.add_argument("domain", metavar="DOMAIN")
    watch.add_argument("interface", nargs="?", metavar="INTERFACE",
                       help="as vnet0, where there are several")
    watch.add_argument("-w", "--write", required=True, metavar="FILE", help="-: standard output")
    watch.add_argument("--snaplen", type=int, default=0, metavar="BYTES", help="of each packet")
    watch.add_argument("--filter", metavar="EXPRESSION", help="which packets, as for tcpdump")
    watch.add_argument("--seconds", type=float, default=0.0, help="end after so long")

    for name, does, text in (("status", _status, "show a guest's redirectors and their counters"),
                             ("clean", _clean, "remove what a killed qemu-handover has left")):
        command(name, does, text).add_argument("domain", metavar="DOMAIN")
    return top


def main() -> int:
    """Returns the exit status."""
    known = parser()
    args, more = known.parse_known_args()
    if more and args.command != "migrate":
        known.error(f"unrecognized arguments: {' '.join(more)}")
    args.options = more
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        return int(args.does(args))
    except Failure as error:
        if args.json:
            print(json.dumps({"status": FAILED, "error": str(error)}))
        print(f"qemu-handover: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("qemu-handover: interrupted", file=sys.stderr)
    return FAILED

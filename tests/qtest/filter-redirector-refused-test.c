/*
 * QTest of filter-redirector: what it can't do is refused, and why
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/socket.h>
#include "qemu/compiler.h"
#include "standard-headers/linux/virtio_config.h"
#include "filter-redirector-helpers.h"

/*
 * What can't be handed over is refused, and why
 */

/* As much of a vhost-user back end as makes QEMU create the netdev. */
static void *vhost_user_run(void *opaque)
{
    const int fd = accept(GPOINTER_TO_INT(opaque), NULL, NULL);
    uint32_t header[3];
    uint8_t payload[4096];

    while (recv(fd, header, sizeof(header), MSG_WAITALL) == sizeof(header) &&
           header[2] <= sizeof(payload) &&
           (!header[2] || recv(fd, payload, header[2], MSG_WAITALL) ==
                          header[2])) {
        const struct {
            uint32_t header[3];
            uint64_t features;
        } QEMU_PACKED reply = {
            { header[0], 1 | 4, 8 }, 1ull << VIRTIO_F_VERSION_1,
        };

        if (header[0] == 1 && /* GET_FEATURES */
            send(fd, &reply, sizeof(reply), MSG_NOSIGNAL) < 0) {
            break;
        }
    }
    close(fd);
    return NULL;
}

/* It ends with QEMU.  The rig has a socket's path already. */
static GThread *vhost_user_start(Rig *r)
{
    g_autofree char *path = g_strdup_printf("%s/vhost-user", r->dir);
    int fd = rig_keep_fd(r, qtest_socket_server(path));

    qemu_set_cloexec(fd);
    g_string_append_printf(r->args, "-chardev socket,id=vu,path=%s "
                           "-netdev vhost-user,id=net,chardev=vu ", path);
    return g_thread_new("vhost-user", vhost_user_run, GINT_TO_POINTER(fd));
}

typedef struct RefusedCase {
    const char *type;       /* of the netdev */
    const char *args;       /* NULL: needs more than arguments */
} RefusedCase;

static const RefusedCase refused[] = {
#ifdef CONFIG_SLIRP
    { "user", "-netdev user,id=net " },
#endif
    { "hubport", "-netdev hubport,id=net,hubid=9 " },
    { "socket", "-netdev socket,id=net,listen=:0 " },
    { "stream", "-netdev stream,id=net,server=on,addr.type=unix,"
      "addr.path=refused.sock,addr.abstract=on " },
    { "dgram", "-netdev dgram,id=net,local.type=inet,local.host=127.0.0.1,"
      "local.port=0,remote.type=inet,remote.host=127.0.0.1,remote.port=9 " },
    { "vhost-user" },
};

/* The message names the object, the netdev and its type. */
static void expect_refused(Rig *r, const char *props, const char *type)
{
    g_autofree char *name = g_strdup_printf("'%s'", type);
    QDict *error = rig_add_error(r, props);
    const char *desc = qdict_get_str(error, "desc");

    g_test_message("%s", desc);
    g_assert_true(g_str_has_prefix(desc, "filter-redirector 'f0': "));
    g_assert_nonnull(strstr(desc, "'net'"));
    g_assert_nonnull(strstr(desc, name));
    qobject_unref(error);
}

static void test_refused(const void *data)
{
    const RefusedCase *c = data;
    Rig *r = rig_new();
    GThread *back_end = NULL;

    g_free(rig_server(r, "srv"));   /* only its address is known by heart */
    rig_tap(r, "x", 0);
    rig_chardev(r, "co");
    if (c->args) {
        g_string_append(r->args, c->args);
    } else {
#ifndef CONFIG_VHOST_NET_USER
        g_test_skip("QEMU is built without vhost-user");
        rig_free(r);
        return;
#endif
        back_end = vhost_user_start(r);
    }
    rig_start(r);
    expect_refused(r, "id=f0,netdev=net,queue=tx,outdev=co,"
                   "enable_when_stopped=on,enable_when_running=off", c->type);
    expect_refused(r, "id=f0,netdev=net,queue=tx,outdev=co,"
                   "enable_when_stopped=on", c->type);
    rig_add(r, "id=f0,netdev=x,queue=tx,outdev=co,enable_when_stopped=on,"
            "enable_when_running=off");
    rig_free(r);
    if (back_end) {
        g_thread_join(back_end);
    }
}

/*
 * Other filters on a netdev that uses vhost: those that only look are told what
 * would show them something.
 */

#define VHOST "netdev 'net' uses vhost, so that its packets don't pass " \
              "through QEMU"
#define BEHIND VHOST ": put it behind a filter-redirector that captures " \
               "them ('netdev' and 'in_netdev' are 'net', no 'outdev')"

static const struct {
    const char *type;
    const char *props;      /* as JSON */
    const char *message;
} others[] = {
    { "filter-dump", "'file': '/dev/null'", BEHIND },
    { "filter-mirror", "'outdev': 'co'", BEHIND },
    { "filter-buffer", "'interval': 1000", VHOST },
    { "filter-rewriter", "'queue': 'all'", VHOST },
    { "filter-replay", "'queue': 'all'", VHOST },
};

static void test_others(const void *unused)
{
#ifdef CONFIG_VHOST_NET_USER
    Rig *r = rig_new();
    GThread *back_end;
    unsigned i;

    g_free(rig_server(r, "srv"));   /* only its address is known by heart */
    rig_chardev(r, "co");
    back_end = vhost_user_start(r);
    rig_start(r);
    for (i = 0; i < ARRAY_SIZE(others); i++) {
        g_autofree char *want = g_strdup_printf("%s 'o': %s", others[i].type,
                                                others[i].message);
        g_autofree char *command =
            g_strdup_printf("{'execute': 'object-add', 'arguments': {'id': "
                            "'o', 'netdev': 'net', 'qom-type': '%s', %s}}",
                            others[i].type, others[i].props);
        QDict *reply;

        if (!rig_has_object(r, others[i].type)) {
            continue;       /* QEMU is built without it */
        }
        qtest_qmp_send_raw(r->qts, "%s", command);
        reply = qtest_qmp_receive(r->qts);
        g_assert_cmpstr(qdict_get_str(qdict_get_qdict(reply, "error"),
                                      "desc"), ==, want);
        qobject_unref(reply);
    }
    rig_free(r);
    g_thread_join(back_end);
#else
    g_test_skip("QEMU is built without vhost-user");
#endif
}

static void test_no_state(const void *data)
{
    Bench b = bench_new();
    QDict *error;
    const char *desc;

    rig_start(b.r);
    error = rig_add_error(b.r, data);
    desc = qdict_get_str(error, "desc");
    g_test_message("%s", desc);
    g_assert_true(g_str_has_prefix(desc, "filter-redirector 'f0': "));
    g_assert_nonnull(strstr(desc, "enable_when_stopped"));
    g_assert_nonnull(strstr(desc, "enable_when_running"));
    qobject_unref(error);
    rig_free(b.r);
}

static void add_refused_cases(void)
{
    static const char *const no_state[][2] = {
        { "hand-over", "id=f0,netdev=x,outdev=co,enable_when_stopped=off,"
          "enable_when_running=off" },
        { "capture", "id=f0,netdev=n,in_netdev=x,outdev=co,"
          "enable_when_running=off" },
        { "inject", "id=f0,netdev=n,indev=ci,out_netdev=x,"
          "enable_when_running=off" },
        { "classic", "id=f0,netdev=n,indev=ci,enable_when_running=off" },
    };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(refused); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/refused/%s",
                            refused[i].type);

        case_add(path, test_refused, &refused[i]);
    }
    for (i = 0; i < ARRAY_SIZE(no_state); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/no-state/%s",
                            no_state[i][0]);

        case_add(path, test_no_state, no_state[i][1]);
    }
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    add_refused_cases();
    case_add("/filter-redirector/refused/other-filters", test_others, NULL);
    return g_test_run();
}

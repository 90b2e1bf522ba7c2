// What JavaScript clients do, in both ways to upload: node client.mjs HUB_URL TOKEN FOLDER
import * as hub from "@huggingface/hub";
const [hubUrl, accessToken] = process.argv.slice(2);
const at = { hubUrl, accessToken };
const assert = (ok, what) => { if (!ok) throw new Error(what); };
const me = await hub.whoAmI(at);
assert(me.name === "local", "whoAmI");
for (const useXet of [false, true]) {
  for (const type of ["model", "dataset"]) {
    const repo = { type, name: `local/js-${type}-${useXet}` };
    await hub.createRepo({ repo, ...at });
    // Not what an earlier round has sent: it would not be sent again.
    const salt = repo.name.length * (useXet ? 31 : 17);
    const big = new Uint8Array(20_000_000).map((_, i) => (i * (7919 + salt)) >> 5);
    const files = [
      { path: "README.md", content: new Blob(["---\ntags: [js]\n---\n# From JavaScript\n"]) },
      { path: "small.bin", content: new Blob([new Uint8Array([0, 1, 2, 255])]) },
      { path: "deep/ünï cödé.bin", content: new Blob([big]) },
    ];
    const commit = await hub.uploadFiles({ repo, files, commitTitle: "from js", useXet, ...at });
    assert(/^[0-9a-f]{40}$/.test(commit.commit.oid), "oid");
    const listed = [];
    for await (const file of hub.listFiles({ repo, recursive: true, ...at })) listed.push(file.path);
    assert(listed.includes("deep/ünï cödé.bin"), listed.join());
    const blob = await hub.downloadFile({ repo, path: "deep/ünï cödé.bin", ...at });
    const back = new Uint8Array(await blob.arrayBuffer());
    assert(back.length === big.length && back.every((b, i) => b === big[i]), "content");
    const part = await blob.slice(1000, 1010).arrayBuffer();
    assert(new Uint8Array(part)[0] === big[1000], "range");
    const info = await hub.fileDownloadInfo({ repo, path: "small.bin", ...at });
    assert(info.size === 4, "size");
    assert(await hub.fileExists({ repo, path: "README.md", ...at }), "exists");
    assert(!(await hub.fileExists({ repo, path: "none", ...at })), "not exists");
    await hub.deleteFile({ repo, path: "small.bin", ...at });
    const pr = await hub.uploadFile({ repo, file: { path: "pr.txt", content: new Blob(["pr"]) }, isPullRequest: true, useXet, ...at });
    assert(pr.pullRequestUrl.endsWith("/discussions/1"), "pull request");
    await hub.createBranch({ repo, branch: "dev", ...at });
    const history = [];
    for await (const c of hub.listCommits({ repo, ...at })) history.push(c.title);
    assert(history.length === 3, history.join());
    await hub.snapshotDownload({ repo, cacheDir: `${process.argv[4]}/${type}-${useXet}`, ...at });
    await hub.deleteRepo({ repo, ...at });
    assert(!(await hub.repoExists({ repo, ...at })), "deleted");
  }
}
const models = [];
for await (const m of hub.listModels({ search: { owner: "local" }, ...at })) models.push(m.name);
assert(models.includes("local/seen"), models.join());
const datasets = [];
for await (const d of hub.listDatasets({ ...at })) datasets.push(d.name);
assert(datasets.length === 0, datasets.join());
console.log("done");

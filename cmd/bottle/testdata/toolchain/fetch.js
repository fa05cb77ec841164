fetch(process.argv[2]).then(async (res) => {
  console.log('status', res.status);
  console.log(await res.text());
});

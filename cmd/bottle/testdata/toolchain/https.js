const url = new URL(process.argv[2]);
const library = url.protocol === 'https:' ? require('https') : require('http');
library.get(url, (res) => {
  console.log('status', res.statusCode);
  res.pipe(process.stdout);
});
